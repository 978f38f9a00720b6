package session

import "testing"

func TestABucketGivesItsRateAndNoMore(t *testing.T) {
	for _, c := range []struct {
		name        string
		rate        int64
		every       int64 // ms between two looks
		least, most int   // tokens taken in ten seconds
	}{
		{name: "without a limit", rate: 0, every: 1000, least: 10 * 5000, most: 10 * 5000},
		{name: "asked every millisecond", rate: 10_000, every: 1, least: 100_000, most: 101_000},
		{name: "asked every hundred, which just holds the burst", rate: 10_000, every: 100, least: 100_000, most: 101_000},
		{name: "asked every second: more than the burst is lost", rate: 10_000, every: 1000, least: 10_000, most: 11_000},
		{name: "a rate that is no whole number a millisecond", rate: 300, every: 1, least: 3000, most: 3030},
		{name: "one a second", rate: 1, every: 7, least: 10, most: 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bucket
			now := int64(1_000_000)
			b.set(c.rate, now)
			taken := 0
			for end := now + 10_000; now < end; {
				now += c.every
				b.fill(now)
				for range 5000 {
					if !b.take() {
						break
					}
					taken++
				}
			}
			if taken < c.least || taken > c.most {
				t.Errorf("%d tokens in ten seconds, want %d to %d", taken, c.least, c.most)
			}
		})
	}
}

func TestABucketTellsWhenTheNextTokensWillBeThere(t *testing.T) {
	for _, c := range []struct{ rate, level, n, want int64 }{
		{rate: 10_000, level: 0, n: 100, want: 10},
		{rate: 10_000, level: 99_999, n: 100, want: 1},
		{rate: 10_000, level: 100_000, n: 100, want: 0},
		{rate: 300, level: 0, n: 1, want: 4},
		{rate: 1, level: 0, n: 1, want: 1000},
		{rate: 1, level: 999, n: 1, want: 1},
		{rate: 0, level: 0, n: 1, want: 0},
	} {
		b := bucket{rate: c.rate, burst: max(1, c.rate/burstsPerS), level: c.level}
		got := b.wait(c.n)
		if got != c.want {
			t.Errorf("rate %d, level %d: %d tokens in %d ms, want %d", c.rate, c.level, c.n, got, c.want)
		}
		if b.fill(got); b.rate > 0 && b.has() < c.n {
			t.Errorf("rate %d, level %d: after %d ms there are %d tokens, want %d", c.rate, c.level, got, b.has(), c.n)
		}
	}
}

func TestABucketIsNotFooledByTheClock(t *testing.T) {
	var b bucket
	b.set(1000, 50_000)
	for b.take() {
	}
	if b.fill(10_000); b.has() != 0 {
		t.Errorf("put back by 40 s, the clock brings %d tokens", b.has())
	}
	if b.fill(10_010); b.has() != 10 {
		t.Errorf("10 ms later there are %d tokens, want 10", b.has())
	}
	if b.fill(1 << 60); b.has() != 100 {
		t.Errorf("in the far future there are %d tokens, want the burst of 100", b.has())
	}
}

func TestALimitThatChangesTakesWhatWasSavedUp(t *testing.T) {
	var b bucket
	b.set(10_000, 0)
	if b.has() != 1000 {
		t.Errorf("a new bucket has %d tokens, want its burst of 1000", b.has())
	}
	b.set(100, 0)
	if b.has() != 10 {
		t.Errorf("with a lower rate it has %d, want 10", b.has())
	}
	b.set(10_000, 0)
	if b.has() != 10 {
		t.Errorf("with a higher one it has %d, want still 10", b.has())
	}
}

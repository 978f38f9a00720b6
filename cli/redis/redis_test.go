package redis

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vecino/api"
)

var rewrite = flag.Bool("update", false, "rewrite the transcripts in testdata")

// A transcript is a session at a shell: lines that begin with "$ vecino redis"
// are run, and what follows is what they print.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			w := open(t)
			b, err := os.ReadFile(file)
			w.must(err)
			var got strings.Builder
			for line := range strings.Lines(string(b)) {
				args, ok := strings.CutPrefix(strings.TrimSpace(line), "$ vecino redis")
				switch {
				case ok:
					got.WriteString("$ vecino redis" + args + "\n" + w.run(split(args)...))
				case strings.HasPrefix(line, "# "):
					got.WriteString("\n" + line)
				}
			}
			text := strings.TrimPrefix(got.String(), "\n")
			if *rewrite {
				w.must(os.WriteFile(file, []byte(text), 0o644))
				return
			}
			if text != string(b) {
				t.Errorf("%s is not what is printed now; look at the difference after -update:\n%s", file, text)
			}
		})
	}
}

// split takes a command line apart; double quotes hold words together.
func split(line string) (args []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

func TestCreateUnderOneKeyTwiceIsOneDatabase(t *testing.T) {
	w := open(t)
	var made [2]api.Database
	for i := range made {
		out := w.raw("create", "--region", "mad", "--json", "--idempotency-key", "k")
		if err := json.Unmarshal([]byte(out), &made[i]); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
	}
	if made[0].ID != made[1].ID || made[0].Name != made[1].Name || made[0].Name == "" {
		t.Errorf("made %d %q and %d %q", made[0].ID, made[0].Name, made[1].ID, made[1].Name)
	}
}

func TestWithoutAWorldTheNextStepIsNamed(t *testing.T) {
	w := &world{T: t, state: t.TempDir()}
	want := "Error: no world in <state>: start one with `vecino up`, or name another with --state, or a platform with --api\nexit 1\n"
	if got := w.run("list"); got != want {
		t.Errorf("printed %s", got)
	}
	w.must(os.WriteFile(filepath.Join(w.state, "world.json"), []byte(`{"api":"http://127.0.0.1:1","token":"x"}`), 0o600))
	want = "Error: the world in <state> isn't running: start it with `vecino up`\nexit 1\n"
	if got := w.run("list"); got != want {
		t.Errorf("printed %s", got)
	}
	want = "Error: a platform at <api> needs a token: set $VECINO_TOKEN\nexit 1\n"
	if got := w.run("list", "--api", "http://127.0.0.1:1"); got != want {
		t.Errorf("printed %s", got)
	}
}

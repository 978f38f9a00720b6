package command_test

import (
	"testing"

	"vecino/internal/transcript"
)

const scripts = "testdata"

// With -update the answers given here are written into the scripts.
func TestScriptsOnAKeyspaceAlone(t *testing.T) {
	transcript.RunDir(t, scripts, transcript.Options{Name: "lone", Golden: true}, func(t *testing.T) transcript.Player {
		return newLone(t)
	})
}

func TestScriptsInsideMulti(t *testing.T) {
	transcript.RunDir(t, scripts, transcript.Options{Name: "multi"}, func(t *testing.T) transcript.Player {
		return transcript.InMulti(newLone(t))
	})
}

func TestScriptsOnRedis(t *testing.T) {
	redis := transcript.StartRedis(t)
	transcript.RunDir(t, scripts, transcript.Options{Name: "redis"}, redis.Player)
}

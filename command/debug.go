package command

import (
	"strings"
	"time"

	"vecino/resp"
)

// debug offers what helps to test a deployment, where the node was started
// with it. Sleeping is what no other command may do: it shows that a slow command hurts nobody
// but its own database.
func debug(c Client, args *Args, out *resp.Writer) error {
	if !debugAllowed(c.Server()) {
		return ErrDebugRefused
	}
	if what := args.Next(); !strings.EqualFold(string(what), "SLEEP") || args.Left() != 1 {
		return wrongSubcommandUse([]byte("DEBUG"), what)
	}
	seconds := args.Float()
	if err := args.Err(); err != nil {
		return err
	}
	time.Sleep(time.Duration(max(0, min(seconds, mostSleep)) * float64(time.Second)))
	out.OK()
	return nil
}

// mostSleep is how many seconds a database can be put to sleep.
const mostSleep = 3600

func debugAllowed(s Server) bool {
	for name, value := range s.Config() {
		if name == "enable-debug-command" {
			return value == "yes"
		}
	}
	return false
}

package transcript

import (
	"slices"
	"strings"

	"vecino/resp"
)

// numbering puts the numbers of connections into commands that name them.
type numbering struct {
	Player
	numbers map[string]string // by "{name}"
}

func (n *numbering) Do(conn string, argv []string) Answer {
	argv = slices.Clone(argv)
	for i, w := range argv {
		if number, ok := n.numbers[w]; ok {
			argv[i] = number
		}
	}
	answer := n.Player.Do(conn, argv)
	if answer.Kind == resp.KindInt && strings.EqualFold(strings.Join(argv, " "), "CLIENT ID") {
		n.numbers["{"+conn+"}"] = answer.Text()
	}
	return answer
}

func (n *numbering) Password(word string) { n.Player.(Locked).Password(word) }

package command

import "vecino/resp"

// What a transaction is, the session knows: it keeps the queue and what is
// watched. These rows are the words for it.
var transactionRows = []Row{
	{
		Name: "MULTI", Since: "1.2.0", Group: Transactions,
		Summary: "Begins a transaction: commands that follow are queued until EXEC.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Fast | Immediate | NoScript | Loading | Stale,
		Conn: func(c Client, _ *Args, out *resp.Writer) error { return okUnless(c.Multi(), out) },
	},
	{
		Name: "EXEC", Since: "1.2.0", Group: Transactions,
		Summary: "Runs the queued commands one after the other, with nothing in between.", Complexity: "that of the queued commands",
		Arity: Exactly(1), Traits: Immediate | NoScript | Loading | Stale,
		Conn: func(c Client, _ *Args, out *resp.Writer) error { return c.Exec(out) },
	},
	{
		Name: "DISCARD", Since: "2.0.0", Group: Transactions,
		Summary: "Forgets the queued commands and what is watched.", Complexity: "O(N), N queued commands",
		Arity: Exactly(1), Traits: Fast | Immediate | NoScript | Loading | Stale,
		Conn: func(c Client, _ *Args, out *resp.Writer) error { return okUnless(c.Discard(), out) },
	},
	{
		Name: "WATCH", Usage: "key [key ...]", Since: "2.2.0", Group: Transactions,
		Summary: "Lets the next EXEC fail if one of the keys is changed before it.", Complexity: "O(1) for each key",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Fast | Immediate | NoScript | Loading | Stale,
		Conn: func(c Client, args *Args, out *resp.Writer) error { return okUnless(c.Watch(args.Rest()), out) },
	},
	{
		Name: "UNWATCH", Since: "2.2.0", Group: Transactions,
		Summary: "Forgets what is watched.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Fast | NoScript | Loading | Stale,
		Conn: func(c Client, _ *Args, out *resp.Writer) error {
			c.Unwatch()
			out.OK()
			return nil
		},
	},
}

func okUnless(err error, out *resp.Writer) error {
	if err == nil {
		out.OK()
	}
	return err
}

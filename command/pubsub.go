package command

import "vecino/resp"

// Who listens to what, package pubsub knows. Subscribing concerns the one
// connection; a message goes to the primary first, from where it reaches
// every region.
var pubsubRows = []Row{
	{
		Name: "SUBSCRIBE", Usage: "channel [channel ...]", Since: "2.0.0", Group: PubSub,
		Summary: "Listens to channels.", Complexity: "O(N), N channels",
		Arity: AtLeast(2), Traits: InSubscribe | NoScript | Loading | Stale, Conn: subscribe(PlainChannel),
	},
	{
		Name: "UNSUBSCRIBE", Usage: "[channel [channel ...]]", Since: "2.0.0", Group: PubSub,
		Summary: "Stops listening to channels, to all if none is named.", Complexity: "O(N), N channels",
		Arity: AtLeast(1), Traits: InSubscribe | NoScript | Loading | Stale, Conn: unsubscribe(PlainChannel),
	},
	{
		Name: "PSUBSCRIBE", Usage: "pattern [pattern ...]", Since: "2.0.0", Group: PubSub,
		Summary: "Listens to all channels whose names match a pattern.", Complexity: "O(N), N patterns",
		Arity: AtLeast(2), Traits: InSubscribe | NoScript | Loading | Stale, Conn: subscribe(PatternChannel),
	},
	{
		Name: "PUNSUBSCRIBE", Usage: "[pattern [pattern ...]]", Since: "2.0.0", Group: PubSub,
		Summary: "Stops listening to patterns, to all if none is named.", Complexity: "O(N), N patterns",
		Arity: AtLeast(1), Traits: InSubscribe | NoScript | Loading | Stale, Conn: unsubscribe(PatternChannel),
	},
	{
		Name: "SSUBSCRIBE", Usage: "shardchannel [shardchannel ...]", Since: "7.0.0", Group: PubSub,
		Summary: "Listens to sharded channels.", Complexity: "O(N), N channels",
		Arity: AtLeast(2), Keys: AllKeys, Traits: InSubscribe | NoScript | Loading | Stale, Conn: subscribe(ShardChannel),
	},
	{
		Name: "SUNSUBSCRIBE", Usage: "[shardchannel [shardchannel ...]]", Since: "7.0.0", Group: PubSub,
		Summary: "Stops listening to sharded channels, to all if none is named.", Complexity: "O(N), N channels",
		Arity: AtLeast(1), Keys: AllKeys, Traits: InSubscribe | NoScript | Loading | Stale, Conn: unsubscribe(ShardChannel),
	},
	{
		Name: "PUBLISH", Usage: "channel message", Since: "2.0.0", Group: PubSub,
		Summary: "Sends a message to those who listen to a channel.", Complexity: "O(N+M), N listeners, M patterns of anybody",
		Arity: Exactly(3), Traits: Fast | ToPrimary | Loading | Stale, Conn: publish(PlainChannel),
	},
	{
		Name: "SPUBLISH", Usage: "shardchannel message", Since: "7.0.0", Group: PubSub,
		Summary: "Sends a message to those who listen to a sharded channel.", Complexity: "O(N), N listeners",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | ToPrimary | Loading | Stale, Conn: publish(ShardChannel),
	},
	{
		Name: "PUBSUB", Since: "2.8.0", Group: PubSub,
		Summary: "Shows channels and how many listen.", Complexity: "that of the subcommand", Arity: AtLeast(2),
		Sub: []Row{
			{
				Name: "CHANNELS", Usage: "[pattern]", Since: "2.8.0", Summary: "Lists the channels that somebody listens to.", Complexity: "O(N), N channels",
				Arity: AtLeast(2), Traits: Loading | Stale, Conn: pubsubChannels(PlainChannel),
			},
			{
				Name: "NUMSUB", Usage: "[channel [channel ...]]", Since: "2.8.0", Summary: "Counts who listens to channels by their names.", Complexity: "O(N), N channels named",
				Arity: AtLeast(2), Traits: Loading | Stale, Conn: pubsubNumSub(PlainChannel),
			},
			{
				Name: "NUMPAT", Since: "2.8.0", Summary: "Counts the patterns that somebody listens to.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Loading | Stale,
				Conn: func(c Client, _ *Args, out *resp.Writer) error {
					out.Int(int64(c.Server().Patterns()))
					return nil
				},
			},
			{
				Name: "SHARDCHANNELS", Usage: "[pattern]", Since: "7.0.0", Summary: "Lists the sharded channels that somebody listens to.", Complexity: "O(N), N channels",
				Arity: AtLeast(2), Traits: Loading | Stale, Conn: pubsubChannels(ShardChannel),
			},
			{
				Name: "SHARDNUMSUB", Usage: "[shardchannel [shardchannel ...]]", Since: "7.0.0", Summary: "Counts who listens to sharded channels.", Complexity: "O(N), N channels named",
				Arity: AtLeast(2), Traits: Loading | Stale, Conn: pubsubNumSub(ShardChannel),
			},
			helpRow("6.2.0"),
		},
	},
}

func subscribe(kind Channel) func(Client, *Args, *resp.Writer) error {
	return func(c Client, args *Args, out *resp.Writer) error {
		c.Subscribe(kind, args.Rest(), out)
		return nil
	}
}

func unsubscribe(kind Channel) func(Client, *Args, *resp.Writer) error {
	return func(c Client, args *Args, out *resp.Writer) error {
		c.Unsubscribe(kind, args.Rest(), out)
		return nil
	}
}

func publish(kind Channel) func(Client, *Args, *resp.Writer) error {
	return func(c Client, args *Args, out *resp.Writer) error {
		channel, message := args.Next(), args.Next()
		out.Int(int64(c.Publish(kind, channel, message)))
		return nil
	}
}

func pubsubChannels(kind Channel) func(Client, *Args, *resp.Writer) error {
	return func(c Client, args *Args, out *resp.Writer) error {
		if args.Left() > 1 {
			return wrongSubcommandUse(args.argv[0], args.argv[1])
		}
		channels := c.Server().Channels(kind, args.Peek())
		out.Array(len(channels))
		for _, channel := range channels {
			out.Bulk(channel)
		}
		return nil
	}
}

func pubsubNumSub(kind Channel) func(Client, *Args, *resp.Writer) error {
	return func(c Client, args *Args, out *resp.Writer) error {
		server := c.Server()
		out.Array(2 * args.Left())
		for args.More() {
			channel := args.Next()
			out.Bulk(channel)
			out.Int(int64(server.Subscribers(kind, channel)))
		}
		return nil
	}
}

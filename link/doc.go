// Package link carries frames between nodes: three lanes a pair, fair between
// databases, with word when the pair comes up and when it goes down.
//
// A node opens one [Hub]. Told by [Hub.SetPeers] who else there is, the hub
// keeps one link to each of them. A link is three connections, its lanes:
//
//	Live      entries as they happen, forwarded commands, replies, publishes
//	CatchUp   entries that a replica missed
//	Snapshot  whole databases
//
// so that bulk on one never stands before what is urgent on another. Within a
// lane every database has a queue of its own, and the queues take turns by
// deficit round robin: a tenant's flood delays its own frames, not those of a
// neighbour. What the frames mean is the caller's business; replication,
// sessions and pubsub read and write them.
//
// # The life of a link
//
// Of two nodes the one with the smaller name dials, so there is never a
// second link to reconcile. All three lanes belong to one incarnation of the
// link: it is up when all three are, and when one of them breaks all are
// closed. A handler sees for each peer
//
//	LinkUp  Frame*  LinkDown  LinkUp  Frame*  LinkDown …
//
// and never two of these incarnations at once. What was queued when a link
// went down is lost; who cares starts again from the positions that both
// sides tell each other after LinkUp.
//
// # On the wire
//
// Each lane starts with three messages that check version, names, and who is
// who (handshake.go), and carries frames from then on (frame.go). With a
// [tls.Config], as [LoadTLS] makes one, all of it is inside TLS 1.3 and the
// names are those in the certificates.
package link

// Package journal is the ordered log of changes: append, sync, read from an
// offset, trim.
//
// A loop has one journal and all its databases write into it. The engine
// appends an entry for each command that changed something, commits once per
// batch, before the batch's replies leave, and trims what checkpoints have made
// superfluous. Replication reads from it. The journal knows which database an
// entry belongs to and its position in that database's history; what the
// effects in it mean it leaves to others.
//
// # What is promised
//
// After Commit an entry is in the kernel, so the death of the process doesn't
// lose it. After Sync, CommitSync, a sync that KickSync asked for or the background
// sync (each second unless told otherwise) it is on disk, so a power cut doesn't
// lose it either. With Options.OnlyWanted the background sync leaves alone what
// Want didn't ask for: entries of databases with durability "no" are on disk
// when others' are, or when the system gets to it. What
// survives is always a prefix of what was appended: an entry is never found
// without all those before it.
//
// # Offsets
//
// An Offset is a place in the stream of bytes that the journal has been since
// it was made. Offsets only grow, also over restarts, and say nothing about
// files.
//
// # On disk
//
// The stream is cut into segment files, named by a number that grows by one:
//
//	0000000000000041.seg   oldest kept
//	0000000000000042.seg   the one being written
//	0000000000000043.seg   prepared, not begun
//	free-0000000000000040.seg   to be used again
//	new.tmp                being prepared; removed at open
//
// All integers are little-endian. A segment is
//
//	   0  magic "VECINOJ\n"
//	   8  format version, 4 bytes (see Version)
//	  16  segment number, 8 bytes
//	  24  serial, 8 bytes: random, new each time that the file is used
//	 508  CRC32C of bytes 0..507
//	 512  start, 8 bytes: the offset of byte 4096      } the begin record: all zero
//	 520  prevEnd, 8 bytes: where the segment before   } until the segment is begun;
//	      ended; start is the same or a little more    } written together with the
//	 528  synced, 8 bytes: what was on disk by then    } first frames
//	 536  time in Unix milliseconds, 8 bytes           }
//	 544  follows, 8 bytes: number of the segment that }
//	      prevEnd lies in; see "After a failed sync"   }
//	4092  CRC32C of bytes 512..4091, seeded with the serial
//	4096  frames, one after the other, to an invalid one or to where the next
//	      segment says that this one ended
//
// and a frame, what one Commit wrote (or a part of it, when that was long),
//
//	 0  length of the body, 4 bytes
//	 4  lag, 4 bytes: this frame's offset less the offset up to which the
//	    journal was on disk when it was written; all ones: no claim
//	 8  CRC32C of the first 8 bytes of each entry in the body, one behind the
//	    other; those hold the check sum of the rest
//	12  CRC32C of bytes 0..11, seeded with the serial and the place in the file
//	16  body: entries, as AppendEntry makes them; may be empty
//	    zeros up to a multiple of 8
//
// An entry, the same on disk and between nodes:
//
//	 0  length of what follows byte 8, 4 bytes
//	 4  CRC32C of what follows
//	 8  entry version, 1 byte: 2
//	 9  prev: the hash of the database's entry before this one, 8 bytes
//	17  database, epoch, seq, time in ms, session, request, as uvarints
//	    effects, to the end
//
// # Why stale bytes are never taken for entries
//
// Segment files are preallocated and used again, because a sync of blocks that
// the file already has costs half of one that must also write the file's
// metadata. A journal that is synced often (see pays) also fills with zeros the
// files that were never used, and leaves one that isn't filled early for one that is. So a file
// is full of zeros or frames of its former lives. None of them is
// valid in this life: the check sum of a frame's head is seeded with the serial.
// Nor does a journal ever write behind bytes that a crash has left: each open
// begins a new segment, and that says where the one before it ended.
//
// # Torn or damaged
//
// Where frames stop being valid, a crash may have cut the journal, or something
// has damaged it. A power cut may leave holes: of what had not been synced, any
// sector may be missing, and valid frames behind it mean nothing. But each frame
// says how much of the journal was on disk when it was written. So, at the first
// invalid frame, at offset X: if any frame or segment behind it claims that X
// was on disk, X was damaged later; Replay reports file and offset and changes
// nothing. Otherwise X and all behind it was never promised to anybody; it is
// cut, and Recovered tells. The background sync, and Close, see to it that such
// a claim is written also when no more entries come.
//
// So the exact rule, for a bit that was flipped after the crash or the Close:
//
//   - in what lies before the highest claim, in a file's header, or in a begin
//     record that a claim covers: DamageError, with file, byte and offset;
//   - behind it, in what nobody was told is on disk: the history is cut at the
//     frame of that bit, and Recovered and Verify tell. After Close that is only
//     the last 16 bytes, the claim itself;
//   - in what no longer means anything (unused room, stale frames, superseded
//     segments): nothing.
//
// # After a failed sync
//
// When a sync fails, the kernel may have dropped what it couldn't write and
// call the next sync a success. So the files in question are not synced, and
// not believed, again. What had been on disk by then stays as it is; all that
// was written since is read back, checked, and written again to a new segment,
// which is synced before it gets a begin record that says: I follow segment
// "follows" at prevEnd. Entries keep their offsets. The segments in between are
// superseded: they are skipped, and trimmed in their turn. If what is read back
// isn't what was written, the journal takes no more until it is opened anew.
//
// # A full disk
//
// Segments are allocated in advance, so a disk that fills up shows when the next
// one is prepared. From then on Err says so as soon as the present one is nearly
// full: whoever asks before it changes something can refuse what couldn't be
// kept. It is tried again with each background sync.
//
// # History of the format
//
//	1  a frame's check sum was of its whole body; no "follows": the one before.
//	   Entries of version 1 were hashed whole for the prev of the next.
//	2  as above
//
// Versions 1 and 2 are read, both for segments and entries, and may stand in one
// journal. Only the newest is written. A segment or entry of any other version is
// refused, and nothing changed.
package journal

import "hash/crc32"

// Version is the version of the segment format that this package writes. It
// reads those from oldestVersion on.
const (
	Version       = 2
	oldestVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Package e2e tests Vecino as its users have it: `vecino up` with all its
// processes, the CLI, and real clients, go-redis and redis-cli.
//
// The program is built once and most tests share one world of five regions
// (main_test.go). Those that break it, one after the other, mend it again
// before the next begins; the others run side by side. Tests about a world's
// own life have one of their own.
//
// Nothing here asserts how long something took, and nothing sleeps: what takes
// its time is polled for, until a deadline that is far beyond what it should
// take. That a reply came by the short way is seen by what INFO counts.
package e2e

// Package purgemodel is a model of the protocol by which writers, readers and purges share a repository, searched for a
// way to lose data. It has tests alone. Its steps are those of pkg/repo, and bear the same names (repo.Step); who changes
// their order there changes it here first.
//
// There are two chunks x and z, a page p over x, and two roots: A = {p} and B = {p, z}. A revision R0 is there at the
// start. Two writers each pick any revision or none to build on, and A or B to store, send any of the objects, look for
// all that is not inherited, and commit. A reader picks a revision and looks for one of its objects. Two purges follow each
// other. Revisions are forgotten at any time. Purge takes any session for dead at any time, whether it lives or not; a
// session that is killed is one that takes no more steps. Purge itself is killed at any step. Revisions, registrations and
// objects are listed, or moved, one by one.
//
// Lost is an object of a revision that is neither in place nor in limbo, and what a reader misses whose session is not
// over. Durability is not modelled; power cuts are for pkg test/fault.
package purgemodel

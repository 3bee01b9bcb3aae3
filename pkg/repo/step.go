package repo

// Step is a step of a session or of purge that others may come before or after. The model in purgemodel has the same
// steps, and tests stop an actor at one to let another go first.
type Step string

// The steps of a writer and of a reader, in their order.
const (
	StepStage    Step = "stage"    // the writer's staging directory is made
	StepRegister Step = "register" // the registration becomes visible
	StepBase     Step = "base"     // is the revision that it names still there?
	StepAlive    Step = "alive"    // is the registration still there?
	StepPublish  Step = "publish"  // an object is looked for, and stored if it is not in place
	StepCheck    Step = "check"    // an object that the new revision reaches is looked for
	StepCommit   Step = "commit"   // the revision becomes visible
)

// The steps of a purge, in their order.
const (
	StepFence         Step = "fence"         // a session's staging is taken away
	StepUnregister    Step = "unregister"    // its registration is removed
	StepRipe          Step = "ripe"          // which epochs' writers have all ended?
	StepObjects       Step = "objects"       // the objects are listed
	StepRevisions     Step = "revisions"     // the revisions are listed
	StepRegistrations Step = "registrations" // the registrations are listed
	StepMark          Step = "mark"          // what they reach is marked
	StepBack          Step = "back"          // an object in a ripe epoch that is marked gets its place back
	StepLeave         Step = "leave"         // and leaves limbo
	StepSync          Step = "sync"          // what was seen gone is made to stay gone
	StepDelete        Step = "delete"        // an object in a ripe epoch that is not marked is deleted
	StepMove          Step = "move"          // an object that is not marked is moved to the new epoch
	StepWriters       Step = "writers"       // the writers alive are listed
	StepRecord        Step = "record"        // and become the epoch's record
)

// step tells a test where an actor is, before it goes on. what is an object, a session or an epoch, or "".
func (r *Repo) step(s Step, what string) {
	if r.Step != nil {
		r.Step(s, what)
	}
}

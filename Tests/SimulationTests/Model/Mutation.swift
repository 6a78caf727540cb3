/// Ways in which the protocol can be broken on purpose, to see whether anybody notices. docs/simulation.md says who does.
enum Mutation: String, CaseIterable, Sendable {
  /// The cut looks only at transactions that began after the last one: one that was open then is forgotten.
  case forgetLateTransactions
  /// The cut takes what is committed now instead of what its target sees.
  case cutPastTheTarget
  /// The next cut starts behind the last event's transaction, not behind the event.
  case skipRestOfTransaction
  /// Nobody looks whether the lease still holds.
  case skipFencing
  /// A lease that ran out is as good as any until somebody takes over, and taking over does not wait for a step under way.
  case recoverDespiteRunningStep
  /// Two cuts may run at once.
  case cutWithoutLock
  /// The dispatcher's witness is not asked for after a crash.
  case skipWitness
  /// A record removes its batches whether or not all of their outcomes are there.
  case closeBatchEarly
  /// All that waits behind a delivered head becomes ready.
  case promoteTwoHeads
  /// Nobody becomes ready after a delivered head.
  case promoteNobody
  /// The cut adds to a key without the lock that a record promotes under.
  case parkWithoutKeyLock
  /// The cut parks what it takes at once, whatever the rest of its target may hold.
  case parkInOrderOfTheLog
  /// A record that is repeated is done twice.
  case recordTwice
  /// A claim takes what another dispatcher holds.
  case claimTheClaimed
  /// An ordered claim does not wait for the disk.
  case asynchronousOrderedClaim
  /// Taking over gives back what is in batches only.
  case forgetClaimsOfTheLost
  /// Taking over gives back what is claimed only.
  case forgetBatchesOfTheLost
  /// After a lost reply everything is given back, held or not.
  case resyncForgetsTheHeld
  /// Whoever gives up forgets the dead letter.
  case buryNothing
  /// A failed direct delivery is not written down for later.
  case forgetFailedDirect
  /// What was sent before a resync and arrives after it is carried out.
  case ignoreLateArrivals
  /// Who has nothing to do is not told of a crash.
  case idlersNeverResync
}

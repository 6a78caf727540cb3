import HTTPDelivery
import Logging
import OutboxStore
import Postgres

/// Writes outcomes down, as soon as the last writing has returned: under load batches form by themselves, and without load
/// nothing waits.
struct RecordLoop {
  let desk: Desk
  let stop: StopSignal
  let logger: Logger

  func run(_ database: DatabaseLoop) throws(PostgresError) {
    while true {
      guard let work = desk.takeOutcomes() else {
        if stop.isSet { return }
        desk.recordBell.wait(upTo: .seconds(1))
        continue
      }
      try record(work, database)
    }
  }

  /// Until it is done, or the lease is lost and it means nothing any more.
  private func record(_ work: RecordWork, _ database: DatabaseLoop) throws(PostgresError) {
    var work = work
    while desk.dispatcher == work.dispatcher {
      if desk.isInDoubt {
        desk.recordBell.wait(upTo: .milliseconds(100))
        if stop.isOverdue { return }
        continue
      }
      let step = try database.step { store throws(PostgresError) in
        try store.record(
          dispatcher: work.dispatcher,
          work.outcomes,
          finishedBatches: work.finishedBatches,
          again: work.again
        )
      }
      switch step {
      case .done(let changes):
        for change in changes {
          logger.notice(
            "an endpoint changed",
            metadata: ["endpoint": "\(change.endpoint)", "circuit": "\(change.circuit)", "state": "\(change.state)"]
          )
        }
        desk.recorded(work, changes)
        return
      case .unleased(lost: true):
        logger.warning(
          "outcomes were refused: the lease is gone, another dispatcher has taken over",
          metadata: ["count": "\(work.outcomes.count)"]
        )
        desk.lost(work.dispatcher)
      case .unleased(lost: false):
        desk.leaseBell.ring()
        desk.recordBell.wait(upTo: .milliseconds(50))
      case .doubtful: desk.doubt()
      case .failed(let unknown):
        if unknown {
          work.again = true
          desk.doubt()
        }
        if stop.isOverdue { return }
      }
    }
  }
}

import HTTPDelivery
import Logging
import OutboxStore
import Postgres

/// Writes outcomes down: without load at once; under load in batches of a few hundred, since each writing costs as much as
/// recording fifty outcomes.
struct RecordLoop {
  let desk: Desk
  let stop: StopSignal
  let logger: Logger

  /// After a batch of `busyFrom` or more, the next may gather for up to `linger`, or until it is `enough`. What lingers is
  /// delivered already; were we killed meanwhile, it would be delivered again.
  private static let busyFrom = 16
  private static let enough = 400
  private static let linger: Duration = .milliseconds(10)

  func run(_ database: DatabaseLoop) {
    var last = 0
    while true {
      var work: RecordWork?
      if last >= Self.busyFrom, !stop.isSet {
        work = desk.takeOutcomes(atLeast: Self.enough)
        if work == nil { desk.recordBell.wait(upTo: Self.linger) }
      }
      guard let work = work ?? desk.takeOutcomes(atLeast: 1) else {
        last = 0
        if stop.isSet { return }
        desk.recordBell.wait(upTo: .seconds(1))
        continue
      }
      last = work.outcomes.count
      _ = record(work, database)
    }
  }

  /// Until it is done, or the lease is lost and it means nothing any more. What the database refuses to take is narrowed
  /// down to the one outcome at fault, which is given up: its batch stays, so whoever takes over tries the delivery again.
  /// Returns the batches of such.
  private func record(_ work: RecordWork, _ database: DatabaseLoop) -> Set<Int64> {
    var work = work
    while desk.dispatcher == work.dispatcher {
      if stop.isOverdue { return [] }
      if desk.isInDoubt {
        desk.recordBell.wait(upTo: .milliseconds(100))
        continue
      }
      if work.again, desk.holdsAnew(work) {
        _ = desk.recorded(work, [])
        return []
      }
      let step = database.step { store throws(PostgresError) -> [EndpointChange]? in
        guard desk.beginRecord() else { return nil }
        defer { desk.endRecord() }
        return try store.record(
          dispatcher: work.dispatcher,
          work.outcomes,
          finishedBatches: work.finishedBatches,
          again: work.again,
          resyncs: desk.resyncs
        )
      }
      switch step {
      case .done(nil): break
      case .done(let changes?):
        tell(desk.recorded(work, changes), work)
        return []
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
          desk.doubt(ofRecord: true)
        }
      case .refused(let error):
        guard let (first, second) = work.halves else { return giveUp(work, error) }
        let spoilt = record(first, database)
        return spoilt.union(record(second.without(spoilt), database))
      }
    }
    return []
  }

  /// A line for each endpoint whose circuit or state changed, and for each that lost deliveries for good.
  private func tell(_ news: [EndpointChange], _ work: RecordWork) {
    for change in news {
      let cause = work.outcomes.last { $0.delivery.endpoint == change.endpoint && $0.error != nil }?.error
      logger.notice(
        "an endpoint changed",
        metadata: [
          "endpoint": "\(change.endpoint)", "circuit": "\(change.circuit)", "state": "\(change.state)",
          "last_error": "\(cause ?? "-")",
        ]
      )
    }
    let dead = Dictionary(grouping: work.outcomes.filter { $0.reason != nil }, by: \.delivery.endpoint)
    for (endpoint, letters) in dead {
      logger.warning(
        "deliveries were given up",
        metadata: [
          "endpoint": "\(endpoint)", "count": "\(letters.count)", "reason": "\(letters[0].reason ?? "-")",
          "last_error": "\(letters[0].error ?? "-")",
        ]
      )
    }
  }

  private func giveUp(_ work: RecordWork, _ error: PostgresError) -> Set<Int64> {
    for outcome in work.outcomes {
      logger.critical(
        "an outcome cannot be recorded",
        metadata: [
          "event": "\(outcome.delivery.event)", "endpoint": "\(outcome.delivery.endpoint)", "error": "\(error)",
        ]
      )
    }
    desk.gaveUp(work)
    return Set(work.outcomes.compactMap(\.batch))
  }
}

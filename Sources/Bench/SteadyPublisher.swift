import Foundation
import Postgres

struct Published: Sendable {
  var number: Int
  /// When it should have been published. That it was not is the machine's doing, and says how much of the rest is.
  var due: UInt64
  /// Whether the one before it was done by then.
  var isOnTime: Bool
  /// Just before the statement was sent, and just after its commit was confirmed.
  var began: UInt64
  var committed: UInt64
}

/// Publishes at fixed moments, whatever the last one took: a slow commit must not thin out the load behind it.
struct SteadyPublisher: Sendable {
  let session: Session
  /// Transactions a second.
  var rate: Int

  /// - Parameters:
  ///   - isOver: asked before each; for a publisher that others tell when to end.
  ///   - insert: publishes event `number`, or several for it, in one transaction.
  func publish(
    first: Int,
    count: Int = .max,
    isOver: @escaping @Sendable () -> Bool = { false },
    _ insert: @escaping @Sendable (Connection, _ number: Int) throws -> Void
  ) async throws -> [Published] {
    try await session.withConnection { connection in
      var published: [Published] = []
      published.reserveCapacity(min(count, 100_000))
      let origin = monotonicNanoseconds()
      var isOnTime = true
      for index in 0..<count {
        if isOver() { break }
        let due = origin + UInt64(index) * 1_000_000_000 / UInt64(rate)
        var until = timespec(tv_sec: Int(due / 1_000_000_000), tv_nsec: Int(due % 1_000_000_000))
        while clock_nanosleep(CLOCK_MONOTONIC, Int32(TIMER_ABSTIME), &until, nil) == EINTR {}
        let began = monotonicNanoseconds()
        try insert(connection, first + index)
        let committed = monotonicNanoseconds()
        published.append(
          Published(number: first + index, due: due, isOnTime: isOnTime, began: began, committed: committed)
        )
        isOnTime = committed < due + 1_000_000_000 / UInt64(rate)
      }
      return published
    }
  }
}

extension Connection {
  /// One event with a number in it, as long as an application's.
  func publish(_ number: Int, type: String, filler: String) throws {
    _ = try query(
      "INSERT INTO outbox.event (type, payload) VALUES ($1, $2)",
      [.text(type), .jsonb(#"{"n": \#(number), "note": "\#(filler)"}"#)]
    )
  }

  /// Several, in one transaction, all with the same number.
  func publish(_ number: Int, type: String, filler: String, times: Int) throws {
    _ = try query(
      "INSERT INTO outbox.event (type, payload) SELECT $1, $2 FROM generate_series(1, $3)",
      [.text(type), .jsonb(#"{"n": \#(number), "note": "\#(filler)"}"#), .int4(Int32(clamping: times))]
    )
  }
}

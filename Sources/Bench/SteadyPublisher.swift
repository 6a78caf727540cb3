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
  var rate: Double
  /// When the first is due; nil: at once.
  var origin: UInt64?

  init(session: Session, rate: Double, origin: UInt64? = nil) {
    (self.session, self.rate, self.origin) = (session, rate, origin)
  }

  init(session: Session, rate: Int) { self.init(session: session, rate: Double(rate)) }

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
      try run(connection, count, isOver, { try insert($0, first + $1) }) {
        published.append($0)
        published[published.count - 1].number += first
      }
      return published
    }
  }

  /// The same for numbers from 0, without keeping anything: `note` is told of each.
  func publish(
    count: Int,
    _ insert: @escaping @Sendable (Connection, _ number: Int) throws -> Void,
    note: @escaping @Sendable (Published) -> Void
  ) async throws {
    try await session.withConnection { try run($0, count, { false }, insert, note) }
  }

  private func run(
    _ connection: Connection,
    _ count: Int,
    _ isOver: () -> Bool,
    _ insert: (Connection, Int) throws -> Void,
    _ note: (Published) -> Void
  ) throws {
    let origin = origin ?? monotonicNanoseconds()
    let interval = 1e9 / rate
    var isOnTime = true
    for number in 0..<count {
      if isOver() { break }
      let due = origin + UInt64(Double(number) * interval)
      var until = timespec(tv_sec: Int(due / 1_000_000_000), tv_nsec: Int(due % 1_000_000_000))
      while clock_nanosleep(CLOCK_MONOTONIC, Int32(TIMER_ABSTIME), &until, nil) == EINTR {}
      let began = monotonicNanoseconds()
      try insert(connection, number)
      let committed = monotonicNanoseconds()
      note(Published(number: number, due: due, isOnTime: isOnTime, began: began, committed: committed))
      isOnTime = committed < due + UInt64(interval)
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

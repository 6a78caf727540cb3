import Foundation
import Postgres

/// What names a delivery: an event and an endpoint.
package struct DeliveryKey: Sendable, Hashable {
  package var event: UUID
  package var endpoint: Int64
  package init(event: UUID, endpoint: Int64) {
    self.event = event
    self.endpoint = endpoint
  }
}

/// What a cut took from the log.
package struct Cut: Sendable {
  /// An event that goes straight out, and to whom.
  package struct Direct: Sendable {
    package var event: OutboxEvent
    package var endpoints: [Int64]
    /// The version of each endpoint's settings, in the order of `endpoints`.
    package var versions: [Int64]
  }
  /// The lease on `direct`; nil if that is empty.
  package var batch: Int64?
  package var events: Int
  /// Pairs of event and endpoint that went to `outbox.delivery`.
  package var parked: Int
  /// Endpoints of parked pairs that can be claimed at once: ordered ones, and those that had no room.
  package var claimable: [Int64]
  /// Whether the log holds more that can be cut at once.
  package var more: Bool
  package var direct: [Direct]
}

extension OutboxStore {
  /// The server's snapshot, as text. While it stays the same, no transaction that writes has begun or ended, and a log
  /// that was exhausted still is. Costs a fifth of a cut that finds nothing.
  package func snapshot() throws(PostgresError) -> String {
    let rows = try connection.query("SELECT pg_current_snapshot()::text")
    return try rows.required(rows.string(0, 0), 0)
  }

  /// The server's snapshot as soon as it is not `seen`, or `longest` has passed: the server looks every `pause`, at least once, which costs
  /// it half of what being asked would, and this process nothing. Blocks the thread.
  ///
  /// A transaction pooler would have to keep a connection for that, so behind one this is a pause and a question.
  package func watch(_ seen: String?, every pause: Duration, upTo longest: Duration) throws(PostgresError) -> String {
    guard !connection.isPooled else {
      Thread.sleep(forTimeInterval: pause / .seconds(1))
      return try snapshot()
    }
    let rows = try connection.query(
      "SELECT outbox.watch($1, $2, $3)",
      [.text(seen), .float8(pause / .seconds(1)), .int4(Int32(clamping: max(1, Int(longest / pause))))]
    )
    return try rows.required(rows.string(0, 0), 0)
  }

  /// Takes new events from the log; nil if there is nothing new or another dispatcher is cutting.
  ///
  /// - Parameters:
  ///   - events, direct, perEndpoint, bytes: at most this many events cut, and pairs, pairs of one endpoint, and bytes of
  ///     payload returned.
  ///   - busy, slots: endpoints that may get fewer than `perEndpoint`, and how many.
  ///   - resyncs: the number of the caller's last resync; the call is refused if another has come since. nil: unchecked.
  package func cut(
    dispatcher: Int64,
    events: Int,
    direct: Int,
    perEndpoint: Int,
    bytes: Int,
    busy: [Int64],
    slots: [Int],
    resyncs: Int? = nil
  ) throws(PostgresError) -> Cut? {
    let rows = try connection.query(
      """
      SELECT batch_id, events_cut, parked, more, endpoint_ids, endpoint_versions, \
      \(ResultSet.eventColumns) FROM outbox.cut($1, $2, $3, $4, $5, $6, $7, $8)
      """,
      [
        .int8(dispatcher), .int4(Int32(clamping: events)), .int4(Int32(clamping: direct)),
        .int4(Int32(clamping: perEndpoint)), .int8(Int64(bytes)), .int8Array(busy),
        .int4Array(slots.map { Int32(clamping: $0) }), .int8(resyncs.map { Int64($0) }),
      ]
    )
    guard rows.count > 0 else { return nil }
    var cut = Cut(
      batch: try rows.int64(0, 0),
      events: Int(try rows.required(rows.int64(0, 1), 1)),
      parked: Int(try rows.required(rows.int64(0, 2), 2)),
      claimable: try rows.int64Array(0, 4) ?? [],
      more: try rows.required(rows.bool(0, 3), 3),
      direct: []
    )
    cut.direct.reserveCapacity(rows.count - 1)
    for row in 1..<max(1, rows.count) {
      cut.direct.append(
        Cut.Direct(
          event: try rows.event(row, from: 6),
          endpoints: try rows.required(rows.int64Array(row, 4), 4),
          versions: try rows.required(rows.int64Array(row, 5), 5)
        )
      )
    }
    return cut
  }
}

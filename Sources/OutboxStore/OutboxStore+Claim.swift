import Postgres

/// A waiting delivery that was claimed.
package struct Claimed: Sendable {
  package var event: OutboxEvent
  package var endpoint: Int64
  package var version: Int64
  /// Real attempts so far.
  package var attempts: Int
  package var dueAt: Timestamp
  /// Time since the event was created.
  package var age: Duration
}

/// What a claim brought.
package struct Claim: Sendable {
  package var deliveries: [Claimed] = []
  /// Endpoints where a rate limit may have left something that is due, and in how long to come again.
  package var again: [Int64: Duration] = [:]
}

extension OutboxStore {
  /// Endpoints with deliveries waiting, and how long until the first of each is due.
  package func waiting() throws(PostgresError) -> [(endpoint: Int64, dueIn: Duration)] {
    let rows = try connection.query("SELECT endpoint_id, due_in_ms FROM outbox.waiting()")
    var waiting: [(endpoint: Int64, dueIn: Duration)] = []
    for row in 0..<rows.count {
      waiting.append(
        (try rows.required(rows.int64(row, 0), 0), .milliseconds(try rows.required(rows.int64(row, 1), 1)))
      )
    }
    return waiting
  }

  /// Claims deliveries that are due, at most `slots` of each endpoint and what its rate limit lets through, none due before
  /// its floor (nil: no floor).
  package func claim(dispatcher: Int64, endpoints: [Int64], slots: [Int], floors: [Timestamp?], resyncs: Int? = nil)
    throws(PostgresError) -> Claim
  {
    let rows = try connection.query(
      """
      SELECT endpoint_id, endpoint_version, attempts, due_at, age_ms, \(ResultSet.eventColumns) \
      FROM outbox.claim($1, $2, $3, $4, resyncs => $5)
      """,
      [
        .int8(dispatcher), .int8Array(endpoints), .int4Array(slots.map { Int32(clamping: $0) }),
        .timestampArray(floors), .int8(resyncs.map { Int64($0) }),
      ]
    )
    var claim = Claim()
    claim.deliveries.reserveCapacity(rows.count)
    for row in 0..<rows.count {
      guard try rows.uuid(row, 5) != nil else {
        claim.again[try rows.required(rows.int64(row, 0), 0)] = .milliseconds(try rows.required(rows.int64(row, 4), 4))
        continue
      }
      claim.deliveries.append(
        Claimed(
          event: try rows.event(row, from: 5),
          endpoint: try rows.required(rows.int64(row, 0), 0),
          version: try rows.required(rows.int64(row, 1), 1),
          attempts: Int(try rows.required(rows.int64(row, 2), 2)),
          dueAt: try rows.required(rows.timestamp(row, 3), 3),
          age: .milliseconds(try rows.required(rows.int64(row, 4), 4))
        )
      )
    }
    return claim
  }
}

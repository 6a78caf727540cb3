import Postgres

/// SQLSTATEs that schema `outbox` raises.
package enum OutboxState {
  /// The lease ran out, and can be renewed if nobody has taken over yet.
  package static let leaseExpired = "OBX01"
  /// The lease is gone: another dispatcher has taken over.
  package static let leaseLost = "OBX02"
  /// The server crashed or failed over: what was committed asynchronously may be gone. Resync first.
  package static let mustResync = "OBX03"
}

extension OutboxStore {
  /// Registers a dispatcher and returns the id of its lease.
  package func register(name: String, host: String, pid: Int32, version: String, lease: Duration) throws(PostgresError)
    -> Int64
  {
    let rows = try connection.query(
      "SELECT outbox.register($1, $2, $3, $4, $5 * interval '1 ms')",
      [.text(name), .text(host), .int4(pid), .text(version), .int8(lease.milliseconds)]
    )
    return try rows.required(rows.int64(0, 0), 0)
  }

  /// Renews the lease; false if it is gone.
  package func heartbeat(dispatcher: Int64, lease: Duration) throws(PostgresError) -> Bool {
    let rows = try connection.query(
      "SELECT outbox.heartbeat($1, $2 * interval '1 ms')",
      [.int8(dispatcher), .int8(lease.milliseconds)]
    )
    return try rows.required(rows.bool(0, 0), 0)
  }

  /// The database's clock, in seconds since 1970.
  package func serverTime() throws(PostgresError) -> Double {
    let rows = try connection.query("SELECT date_part('epoch', clock_timestamp())")
    return try rows.required(rows.double(0, 0), 0)
  }

  /// A dispatcher whose lease had run out, and how many deliveries it left behind.
  package struct Recovered: Sendable {
    package var dispatcher: Int64
    package var name: String
    package var deliveries: Int64
  }

  /// Takes over from dispatchers whose lease ran out, but for the caller itself, and from nobody for `settle` after the
  /// server has started.
  package func recover(caller: Int64? = nil, settle: Duration = .zero) throws(PostgresError) -> [Recovered] {
    let rows = try connection.query(
      "SELECT dispatcher_id, name, deliveries FROM outbox.recover($1, $2 * interval '1 ms')",
      [.int8(caller), .int8(settle.milliseconds)]
    )
    var recovered: [Recovered] = []
    for row in 0..<rows.count {
      recovered.append(
        Recovered(
          dispatcher: try rows.required(rows.int64(row, 0), 0),
          name: try rows.required(rows.string(row, 1), 1),
          deliveries: try rows.required(rows.int64(row, 2), 2)
        )
      )
    }
    return recovered
  }

  /// Tells the database what this dispatcher holds; whatever else it thinks the dispatcher holds becomes available again.
  /// Returns how many deliveries that was.
  ///
  /// - Parameters:
  ///   - batches: the batch that each is held by, nil if it was claimed. Left out: however it is held.
  ///   - number: counts the caller's resyncs under this lease, from 1. What it sent before is refused from now on,
  ///     should it arrive yet, and so is this one when the next has been made. nil: nothing is checked.
  package func resync(dispatcher: Int64, held: [DeliveryKey], batches: [Int64?]? = nil, number: Int? = nil)
    throws(PostgresError) -> Int64
  {
    let rows = try connection.query(
      "SELECT outbox.resync($1, $2, $3, $4, CASE WHEN $6 THEN $5 END)",
      [
        .int8(dispatcher), .uuidArray(held.map(\.event)), .int8Array(held.map(\.endpoint)),
        .int8(number.map { Int64($0) }), .int8Array(batches ?? []), .bool(batches != nil),
      ]
    )
    return try rows.required(rows.int64(0, 0), 0)
  }

  /// Gives everything back and releases the lease.
  package func release(dispatcher: Int64) throws(PostgresError) -> Int64 {
    let rows = try connection.query("SELECT outbox.release($1)", [.int8(dispatcher)])
    return try rows.required(rows.int64(0, 0), 0)
  }

  /// Why this database must not be dispatched from; nil if it may.
  package func anchorProblem() throws(PostgresError) -> String? {
    try connection.query("SELECT outbox.anchor_problem()").string(0, 0)
  }

  /// Creates and drops partitions, trims. Returns what was done, a line each.
  package func maintain() throws(PostgresError) -> [String] {
    let rows = try connection.query("SELECT action, subject FROM outbox.maintain()")
    return (0..<rows.count).map { "\(rows.string($0, 0) ?? "") \(rows.string($0, 1) ?? "")" }
  }

  /// ``maintain()`` until there is nothing left to create or to drop, a transaction for each table, or another has it to do.
  /// Returns what was done in all, a line each; what is kept or postponed, once.
  package func maintainAll() throws(PostgresError) -> [String] {
    var done: [String] = []
    // A table with days to make and one with days to drop, of each of the three; and once more, to see that it is all.
    for _ in 0..<7 {
      let actions = try maintain()
      done += actions.filter { !done.contains($0) }
      if !actions.contains(where: { $0.hasPrefix("created") || $0.hasPrefix("dropped") }) { break }
    }
    return done
  }

  package func stampSubscriptions() throws(PostgresError) {
    _ = try connection.query("SELECT outbox.stamp_subscriptions()")
  }
}

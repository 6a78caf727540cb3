import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres

/// What the database is asked, apart from all faults: how much was in flight when one took effect.
///
/// It explains and bounds repetitions. Whether something was lost, or sent though it never was, is decided without it.
struct Observer: Sendable {
  let session: Session
  /// How long before a crash something may have arrived of which the crash took back the record. The loss itself is
  /// below a second (three times `wal_writer_delay`); the rest is for a dispatcher that was slow to record.
  static let margin = Duration.seconds(4)

  /// Of the endpoints, in the order of their places.
  var endpoints: [Int64] = []

  /// What dispatchers hold and have not recorded: of one process, or of all.
  func inFlight(pid: pid_t? = nil) async throws -> Set<Pair> {
    try await pairs(
      """
      SELECT (e.payload ->> 'n')::bigint, f.endpoint_id
      FROM outbox.in_flight f JOIN outbox.event e ON e.id = f.event_id JOIN outbox.dispatcher d ON d.id = f.dispatcher_id
      WHERE $1 IS NULL OR d.pid = $1
      """,
      [.int4(pid)]
    )
  }

  /// The leases of a process that have not been taken over, one at most.
  func dispatchers(pid: pid_t) async throws -> Set<Int64> {
    try await patiently { connection in
      let rows = try connection.query("SELECT id FROM outbox.dispatcher WHERE pid = $1", [.int4(pid)])
      return Set(try (0..<rows.count).map { try rows.required(rows.int64($0, 0), 0) })
    }
  }

  /// Looks on while a dispatcher may lose its lease, and returns what it held when it did, or at the end.
  ///
  /// Between the end of a lease and its recovery nothing can be recorded any more, so that the last look is exact.
  func held(by pid: pid_t, while condition: () async throws -> Bool) async throws -> Set<Pair> {
    var held = try await inFlight(pid: pid)
    while try await condition() {
      let now = try await inFlight(pid: pid)
      guard try await int("SELECT count(*) FROM outbox.dispatcher WHERE pid = \(pid)") > 0 else { return held }
      held = now
      try await Task.sleep(for: .milliseconds(20))
    }
    return held
  }

  /// Whether a dispatcher has renewed its lease in the last second, or got another.
  func isLively(_ pid: pid_t) async throws -> Bool {
    try await int(
      """
      SELECT count(*) FROM outbox.dispatcher
      WHERE pid = \(pid) AND expires_at > clock_timestamp() + interval '\(Crew.leaseSeconds - 1) s'
      """
    ) > 0
  }

  /// Which of them the database does not know to be delivered.
  /// - Parameter crash: what arrived well before, has been recorded and need not be asked for.
  func unrecorded(_ arrived: Set<Pair>, since crash: ContinuousClock.Instant) async throws -> Set<Pair> {
    let window = (.now - crash + Self.margin + Self.margin).seconds
    let recorded = try await pairs(
      """
      SELECT (e.payload ->> 'n')::bigint, a.endpoint_id
      FROM outbox.attempt a JOIN outbox.event e ON e.id = a.event_id
      WHERE a.outcome = 'delivered' AND a.at > now() - make_interval(secs => $1)
      """,
      [.float8(window)]
    )
    return arrived.subtracting(recorded)
  }

  private func pairs(_ sql: String, _ parameters: [Parameter]) async throws -> Set<Pair> {
    try await patiently { connection in
      let rows = try connection.query(sql, parameters)
      var pairs: Set<Pair> = []
      for row in 0..<rows.count { if let pair = try pair(rows, row) { pairs.insert(pair) } }
      return pairs
    }
  }

  /// What has not been taken from the log, says the database; after a crash, that may be in a dispatcher's hands all the
  /// same, if the cut that took it was among the commits that the crash took back.
  func uncut() async throws -> Set<Pair> {
    try await pairs(
      """
      SELECT (e.payload ->> 'n')::bigint, n.id
      FROM (SELECT done FROM outbox.position ORDER BY id DESC LIMIT 1) p, outbox.event e, outbox.endpoint n
      WHERE e.tx >= pg_snapshot_xmin(p.done) AND NOT pg_visible_in_snapshot(e.tx, p.done)
      """,
      []
    )
  }

  /// What waits and may be in a dispatcher's hands all the same, if the claim that took it was among the commits that a
  /// crash took back: whatever may be claimed now, and of a key what follows on events that have arrived, up to the first
  /// that has not.
  func claimable(after arrived: Set<Pair>) async throws -> Set<Pair> {
    let waiting = try await patiently { connection in
      let rows = try connection.query(
        """
        SELECT (e.payload ->> 'n')::bigint, d.endpoint_id, d.key
        FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id
        WHERE d.key IS NOT NULL OR d.dispatcher_id IS NULL AND d.ready AND d.due_at <= clock_timestamp() ORDER BY d.seq
        """
      )
      return try (0..<rows.count).compactMap { row in
        try pair(rows, row).map { Waiting(pair: $0, key: try rows.text(row, 2)) }
      }
    }
    return Waiting.reached(waiting, arrived)
  }

  /// Attempts of which the engine's history says that their outcome is not known.
  /// - Parameters:
  ///   - since: by the database's clock, seconds since 1970.
  ///   - timeout: of the endpoints, in seconds.
  func mishaps(since: Double, timeout: Int) async throws -> [Mishap] {
    try await patiently { connection in
      let began = ContinuousClock.now
      let rows = try connection.query(
        """
        SELECT (e.payload ->> 'n')::bigint, a.endpoint_id, a.outcome = 'unknown', a.dispatcher_id,
          extract(epoch FROM a.at)::float8, extract(epoch FROM clock_timestamp())::float8
        FROM outbox.attempt a JOIN outbox.event e ON e.id = a.event_id
        WHERE a.at > to_timestamp($1)
          -- A timeout that had its time: one that came early explains nothing. (Milliseconds are rounded here and there.)
          AND (a.outcome = 'failed' AND a.error LIKE 'timeout:%' AND a.duration_ms >= $2 - 10
               -- A dispatcher that lives on has compared, and given back what it does not hold; nothing of that was sent.
               -- What was recorded before its lease was taken over is not to come again.
               OR a.outcome = 'unknown'
                  AND NOT EXISTS (SELECT FROM outbox.dispatcher d WHERE d.id = a.dispatcher_id)
                  AND NOT EXISTS (SELECT FROM outbox.attempt r WHERE r.event_id = a.event_id AND r.endpoint_id = a.endpoint_id
                                    AND r.outcome = 'delivered' AND r.at < a.at))
        ORDER BY a.at
        """,
        [.float8(since), .int4(Int32(timeout * 1000))]
      )
      return try (0..<rows.count).compactMap { row -> Mishap? in
        guard let pair = try pair(rows, row) else { return nil }
        let at = try rows.required(rows.double(row, 4), 4)
        let now = try rows.required(rows.double(row, 5), 5)
        let isLost = try rows.required(rows.bool(row, 2), 2)
        return Mishap(
          entry: Mishap.Entry(
            cause: isLost ? .lease : .timeout,
            pair: pair,
            dispatcher: try rows.required(rows.int64(row, 3), 3),
            writtenAt: at
          ),
          at: began - .seconds(now - at)
        )
      }
    }
  }

  private func pair(_ rows: ResultSet, _ row: Int) throws -> Pair? {
    let event = Int(try rows.required(rows.int64(row, 0), 0))
    return endpoints.firstIndex(of: try rows.required(rows.int64(row, 1), 1)).map { Pair(event: event, endpoint: $0) }
  }

  /// Every attempt, for a person to read.
  func history(of pair: Pair) async throws -> [String] {
    let endpoint = endpoints[pair.endpoint]
    return try await patiently { connection in
      try connection.queryText(
        """
        SELECT concat_ws(' ', e.id, a.at, 'attempt', a.attempt, a.outcome, a.status, a.error, 'batch', a.batch_id,
          'dispatcher', a.dispatcher_id)
        FROM outbox.event e JOIN outbox.attempt a ON a.event_id = e.id
        WHERE e.payload -> 'n' = to_jsonb($1::bigint) AND a.endpoint_id = $2 ORDER BY a.at
        """,
        [.int8(Int64(pair.event)), .int8(endpoint)]
      ).rows.compactMap { $0[0] }
    }
  }

  /// Of the engine's tables, each with its partitions.
  func sizes() async throws -> [Tenth.Relation] {
    try await patiently { connection in
      try connection.queryText(
        """
        SELECT coalesce(p.relname, c.relname), sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid))
        FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
        WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind = 'r' GROUP BY 1 ORDER BY 1
        """
      ).rows.map { row in
        Tenth.Relation(
          name: row[0] ?? "",
          tableBytes: row[1].flatMap { Int($0) } ?? 0,
          indexBytes: row[2].flatMap { Int($0) } ?? 0
        )
      }
    }
  }

  /// Seconds since 1970.
  func serverTime() async throws -> Double {
    try await patiently { connection in
      try connection.query("SELECT extract(epoch FROM clock_timestamp())::float8").double(0, 0) ?? 0
    }
  }

  /// Returns what was done, a line each.
  func maintain() async throws -> [String] { try await patiently { try OutboxStore($0).maintainAll() } }

  func execute(_ sql: String) async throws { try await patiently { try $0.execute(sql) } }

  func transaction(_ body: @Sendable (Connection) throws -> Void) async throws {
    try await patiently { connection in
      try connection.execute("BEGIN")
      try body(connection)
      try connection.execute("COMMIT")
    }
  }

  func text(_ sql: String) async throws -> String {
    try await patiently { try $0.queryText(sql).rows.first?.first.flatMap { $0 } ?? "" }
  }

  func int(_ sql: String) async throws -> Int {
    try await patiently { Int(try $0.query("SELECT (\(sql))::bigint").int64(0, 0) ?? 0) }
  }

  /// A server may still be starting, which takes a while where disks are busy.
  private func patiently<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
    let deadline = ContinuousClock.now + TransactionLookUp.patience
    while true {
      do {
        return try await session.withConnection(body)
      } catch let error as PostgresError where error.remedy != .giveUp && ContinuousClock.now < deadline {
        try await Task.sleep(for: .milliseconds(20))
      }
    }
  }
}

import EmbeddedPostgres
import Foundation
import Postgres

/// What the database is asked, apart from all faults: how much was in flight when one took effect.
///
/// It explains and bounds repetitions. Whether something was lost, or sent though it never was, is decided without it.
struct Observer: Sendable {
  let session: Session
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

  /// Which of them the database does not know to be delivered.
  func unrecorded(_ answered: Set<Pair>) async throws -> Set<Pair> {
    let recorded = try await pairs(
      """
      SELECT (e.payload ->> 'n')::bigint, a.endpoint_id
      FROM outbox.attempt a JOIN outbox.event e ON e.id = a.event_id WHERE a.outcome = 'delivered'
      """,
      []
    )
    return answered.subtracting(recorded)
  }

  private func pairs(_ sql: String, _ parameters: [Parameter]) async throws -> Set<Pair> {
    try await patiently { connection in
      let rows = try connection.query(sql, parameters)
      var pairs: Set<Pair> = []
      for row in 0..<rows.count {
        let event = Int(try rows.required(rows.int64(row, 0), 0))
        guard let place = endpoints.firstIndex(of: try rows.required(rows.int64(row, 1), 1)) else { continue }
        pairs.insert(Pair(event: event, endpoint: place))
      }
      return pairs
    }
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

  func execute(_ sql: String) async throws { try await patiently { try $0.execute(sql) } }

  func int(_ sql: String) async throws -> Int {
    try await patiently { Int(try $0.query("SELECT (\(sql))::bigint").int64(0, 0) ?? 0) }
  }

  /// A server may still be starting.
  private func patiently<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
    let deadline = ContinuousClock.now + .seconds(30)
    while true {
      do {
        return try await session.withConnection(body)
      } catch let error as PostgresError where error.remedy != .giveUp && ContinuousClock.now < deadline {
        try await Task.sleep(for: .milliseconds(20))
      }
    }
  }
}

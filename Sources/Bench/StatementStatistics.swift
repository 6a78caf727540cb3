import Postgres

/// What the server counted of each kind of statement, with all that it calls, by pg_stat_statements.
struct StatementStatistics: Sendable {
  struct Counts: Sendable {
    var calls = 0.0
    var milliseconds = 0.0
    var rows = 0.0
    /// Pages looked at, wherever they were.
    var buffers = 0.0
    var walBytes = 0.0

    static func - (later: Counts, earlier: Counts) -> Counts {
      Counts(
        calls: later.calls - earlier.calls,
        milliseconds: later.milliseconds - earlier.milliseconds,
        rows: later.rows - earlier.rows,
        buffers: later.buffers - earlier.buffers,
        walBytes: later.walBytes - earlier.walBytes
      )
    }
  }

  /// By what they do: "cut", "record".
  private(set) var kinds: [String: Counts] = [:]

  /// What the server must be started with.
  static let settings = [
    "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top",
    "pg_stat_statements.max": "1000",
  ]

  /// Once for each database.
  static func prepare(_ database: BenchDatabase) async throws {
    try await database.session.withConnection { try $0.execute("CREATE EXTENSION pg_stat_statements SCHEMA public") }
  }

  /// Of this database, since the server was started.
  init(_ database: BenchDatabase) async throws {
    let rows = try await database.session.withConnection { connection in
      try connection.queryText(
        """
        SELECT s.query, s.calls, s.total_exec_time + s.total_plan_time, s.rows, s.shared_blks_hit + s.shared_blks_read, s.wal_bytes
        FROM public.pg_stat_statements s
        WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        """
      ).rows
    }
    for row in rows {
      let numbers = row.dropFirst().map { $0.flatMap(Double.init) ?? 0 }
      var counts = kinds[Self.kind(of: row[0] ?? "")] ?? Counts()
      counts.calls += numbers[0]
      counts.milliseconds += numbers[1]
      counts.rows += numbers[2]
      counts.buffers += numbers[3]
      counts.walBytes += numbers[4]
      kinds[Self.kind(of: row[0] ?? "")] = counts
    }
  }

  private init(kinds: [String: Counts]) { self.kinds = kinds }

  subscript(_ kind: String) -> Counts { kinds[kind] ?? Counts() }

  static func - (later: StatementStatistics, earlier: StatementStatistics) -> StatementStatistics {
    StatementStatistics(kinds: later.kinds.merging(earlier.kinds, uniquingKeysWith: -).filter { $0.value.calls > 0 })
  }

  private static func kind(of query: String) -> String {
    for step in ["cut", "claim", "record", "heartbeat", "waiting", "settle", "maintain"]
    where query.contains("outbox.\(step)(") { return step }
    if query.contains("pg_current_snapshot()::text") || query.contains("outbox.watch(") { return "poll" }
    if query.hasPrefix("INSERT INTO outbox.event") || query.hasPrefix("INSERT INTO bench_floor") { return "publish" }
    return "other"
  }
}

import Postgres

/// What is in a table, with its partitions and indexes.
package struct TableStatistics: Sendable, Codable {
  package var name: String
  package var liveRows: Double
  /// Row versions that no vacuum has removed yet.
  package var deadRows: Double
  /// Row versions that updates and deletes have left behind, removed since or not.
  package var everDead: Double
  package var heapMegabytes: Double
  package var indexMegabytes: Double
  package var vacuums: Double

  /// Of schema outbox, in alphabetical order; tables that are empty and always were are left out.
  static func all(_ database: BenchDatabase) async throws -> [TableStatistics] {
    // Longer than the server takes to hand in the counts of a session.
    try await Task.sleep(for: .milliseconds(1200))
    return try await database.session.withConnection { connection in
      try connection.queryText(
        """
        SELECT regexp_replace(s.relname, '_(default|\\d{8})$', '') AS name, sum(s.n_live_tup), sum(s.n_dead_tup),
          sum(s.n_tup_upd + s.n_tup_del), sum(pg_table_size(s.relid)) / 1048576.0, sum(pg_indexes_size(s.relid)) / 1048576.0,
          sum(s.autovacuum_count)
        FROM pg_stat_user_tables s WHERE s.schemaname = 'outbox'
        GROUP BY 1 HAVING sum(s.n_live_tup + s.n_tup_upd + s.n_tup_del) > 0 ORDER BY 1
        """
      ).rows.map { row in
        let numbers = row.dropFirst().map { $0.flatMap(Double.init) ?? .nan }
        return TableStatistics(
          name: row[0] ?? "",
          liveRows: numbers[0],
          deadRows: numbers[1],
          everDead: numbers[2],
          heapMegabytes: numbers[3],
          indexMegabytes: numbers[4],
          vacuums: numbers[5]
        )
      }
    }
  }

  static func table(_ all: [TableStatistics], events: Double) -> ReportTable {
    ReportTable(
      columns: [
        "table", "live rows", "dead rows", "ever dead", "ever dead per event", "heap MiB", "indexes MiB", "autovacuums",
      ],
      rows: all.map {
        [
          $0.name, $0.liveRows.text(0), $0.deadRows.text(0), $0.everDead.text(0), ($0.everDead / events).text(4),
          $0.heapMegabytes.text(1), $0.indexMegabytes.text(1), $0.vacuums.text(0),
        ]
      }
    )
  }
}

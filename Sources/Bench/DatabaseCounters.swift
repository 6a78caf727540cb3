/// What PostgreSQL itself counts.
struct DatabaseCounters {
  var walBytes: Double
  /// Row versions that updates and deletes left behind, whether or not a vacuum has removed them since.
  var deadRows: Double
  var transactions: Double

  init(_ database: BenchDatabase) async throws {
    // Longer than the server takes to hand in the counts of a session that has gone idle or ended.
    try await Task.sleep(for: .milliseconds(1200))
    let numbers = try await database.numbers(
      """
      SELECT pg_current_wal_insert_lsn() - '0/0',
        (SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'outbox'),
        (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())
      """
    )
    (walBytes, deadRows, transactions) = (numbers[0], numbers[1], numbers[2])
  }
}

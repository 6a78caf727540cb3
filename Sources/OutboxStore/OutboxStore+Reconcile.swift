import Postgres

/// Something the reconciler found, or `ok`: that it looked and all is well.
package struct Finding: Sendable, Codable, Equatable {
  package enum Severity: String, Sendable, Codable, CaseIterable {
    /// Events are lost, or nothing moves.
    case critical
    /// It could not be checked, which is not health.
    case unchecked
    case warning
    case info
    case ok
  }
  package var severity: Severity
  /// A stable name, for programs.
  package var finding: String
  package var subject: String
  package var detail: String
  package var remedy: String?
}

extension OutboxStore {
  /// The reconciler's findings, the worst first. Waits a few seconds for a lock at most, and then throws SQLSTATE 55P03.
  ///
  /// - Parameter since: how far back conservation is proved, as PostgreSQL reads an interval.
  package func reconcile(since: String = "1 hour") throws(PostgresError) -> [Finding] {
    try connection.execute("SET lock_timeout = '3s'")
    let rows = try connection.query(
      "SELECT severity, finding, subject, detail, remedy FROM outbox.reconcile(since => $1::text::interval)",
      [.text(since)]
    )
    var findings: [Finding] = []
    for row in 0..<rows.count {
      let severity = try rows.required(rows.string(row, 0), 0)
      findings.append(
        Finding(
          severity: Finding.Severity(rawValue: severity) ?? .unchecked,
          finding: try rows.required(rows.string(row, 1), 1),
          subject: try rows.required(rows.string(row, 2), 2),
          detail: try rows.required(rows.string(row, 3), 3),
          remedy: rows.string(row, 4)
        )
      )
    }
    let order = Finding.Severity.allCases
    return findings.sorted { order.firstIndex(of: $0.severity)! < order.firstIndex(of: $1.severity)! }
  }

  /// Puts back the deliveries that are missing; a finding each.
  package func repair(since: String) throws(PostgresError) -> [Finding] {
    try connection.execute("SET lock_timeout = '3s'")
    let rows = try connection.query(
      "SELECT event_id::text, endpoint_id::text FROM outbox.repair(since => $1::text::interval)",
      [.text(since)]
    )
    var findings: [Finding] = []
    for row in 0..<rows.count {
      let (event, endpoint) = (try rows.required(rows.string(row, 0), 0), try rows.required(rows.string(row, 1), 1))
      findings.append(
        Finding(
          severity: .info,
          finding: "repaired",
          subject: "event \(event), endpoint \(endpoint)",
          detail: "the delivery was missing, and is due now"
        )
      )
    }
    return findings
  }

  /// Who holds or wants a lock on Martlet's tables that keeps others out, in words, a line each.
  package func lockHolders() throws(PostgresError) -> [String] {
    let rows = try connection.query(
      """
      SELECT DISTINCT CASE WHEN l.granted THEN 'held by ' ELSE 'wanted by ' END
        || coalesce(format('session %s (%s, %s since %s): %s', a.pid, a.usename, a.state, a.xact_start, left(a.query, 80)),
                    'a prepared transaction; see pg_prepared_xacts')
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE n.nspname = 'outbox' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') OR l.pid IS NULL)
      """
    )
    return (0..<rows.count).compactMap { rows.string($0, 0) }
  }
}

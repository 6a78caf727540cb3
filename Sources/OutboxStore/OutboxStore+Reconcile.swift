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
  /// The reconciler's findings, the worst first.
  package func reconcile() throws(PostgresError) -> [Finding] {
    let rows = try connection.query("SELECT severity, finding, subject, detail, remedy FROM outbox.reconcile()")
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
}

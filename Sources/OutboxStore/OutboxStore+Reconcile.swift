import Foundation
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
  /// Of `conservation`: the counts in `detail`.
  package var figures: Proof?
}

/// The equation of a period: pairs = delivered + waiting + inFlight + dead + missing, and what it speaks of; see
/// `outbox.conservation`. Points in time are as in JSON, ISO 8601 or `infinity`.
package struct Proof: Sendable, Codable, Equatable {
  package var since, until: String
  package var events, pairs, delivered, waiting, inFlight, dead, missing, skipped: Int
  /// Rows of the ledger that were added up, and events that are not in it yet and were looked at themselves.
  package var rows, unproved: Int
  /// The first and the last event, nil if there is none.
  package var oldest, newest: String?
  /// When somebody last looked at what the ledger knows to wait or to fly; nil if it knows of nothing.
  package var asOf: String?
  /// Whether all that was cut has been counted.
  package var complete: Bool
  /// Of events before nothing is known.
  package var begins: String?
  /// The oldest event that is not in the ledger yet.
  package var unprovedSince: String?

  package enum CodingKeys: String, CodingKey {
    case since, until, events, pairs, delivered, waiting, dead, missing, skipped, rows, unproved, oldest, newest,
      complete, begins
    case inFlight = "in_flight"
    case asOf = "as_of"
    case unprovedSince = "unproved_since"
  }
}

/// From when to when events were created, as PostgreSQL writes points in time.
package struct Period: Sendable, Equatable {
  package var since: String
  package var until: String
}

extension OutboxStore {
  /// A period as a person names it: each end is a point in time (`2026-11-01`, `yesterday`) or how long ago (`7 days`).
  ///
  /// - Parameter until: nil: it has no end.
  /// - Throws: SQLSTATE 22007 or 22008 where PostgreSQL understands neither, 22023 where the period is empty.
  package func period(since: String, until: String? = nil) throws(PostgresError) -> Period {
    let period = Period(
      since: try point(since),
      until: try until.map { (text) throws(PostgresError) in try point(text) } ?? "infinity"
    )
    _ = try connection.query(
      "SELECT outbox.require_period($1::text::timestamptz, $2::text::timestamptz)",
      [.text(period.since), .text(period.until)]
    )
    return period
  }

  private func point(_ text: String) throws(PostgresError) -> String {
    func asked(_ sql: String) throws(PostgresError) -> String {
      let rows = try connection.query(sql, [.text(text)])
      return try rows.required(rows.string(0, 0), 0)
    }
    do {
      return try asked("SELECT $1::text::timestamptz::text")
    } catch  where error.sqlState == "22007" {
      return try asked("SELECT (clock_timestamp() - $1::text::interval)::text")
    }
  }

  /// The reconciler's findings, the worst first. Waits a few seconds for a lock at most, and then throws SQLSTATE 55P03.
  ///
  /// - Parameter period: of which conservation is told; nil: the last hour.
  package func reconcile(_ period: Period? = nil) throws(PostgresError) -> [Finding] {
    try boundWaits()
    let period = if let period { period } else { try self.period(since: "1 hour") }
    let rows = try connection.query(
      """
      SELECT r.severity, r.finding, r.subject, r.detail, r.remedy, r.figures::text
      FROM (SELECT $1::text::timestamptz AS since, $2::text::timestamptz AS until) p, LATERAL outbox.reconcile(
        since => CASE WHEN isfinite(p.since) THEN clock_timestamp() - p.since ELSE '5000 years' END,
        until => CASE WHEN isfinite(p.until) THEN clock_timestamp() - p.until ELSE '0 s' END) r
      """,
      [.text(period.since), .text(period.until)]
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
          remedy: rows.string(row, 4),
          figures: try rows.string(row, 5).map { (text) throws(PostgresError) in try Self.proof(text) }
        )
      )
    }
    let order = Finding.Severity.allCases
    return findings.sorted { order.firstIndex(of: $0.severity)! < order.firstIndex(of: $1.severity)! }
  }

  private static func proof(_ json: String) throws(PostgresError) -> Proof {
    do {
      return try JSONDecoder().decode(Proof.self, from: Data(json.utf8))
    } catch {
      throw PostgresError(.decoding, message: "the figures of the proof are not what this version expects: \(error)")
    }
  }

  /// Whoever asks whether all is well must hear of a lock, and not wait behind it.
  private func boundWaits() throws(PostgresError) { try connection.execute("SET lock_timeout = '3s'") }

  /// Goes on with the proof, a step and transaction at a time, until there is nothing to do, somebody else is doing it,
  /// `steps` are done or the task is cancelled. Returns the number of steps.
  ///
  /// - Parameter settledFor: how old the last events must be to be proved though they are few, as PostgreSQL reads an
  ///   interval.
  @discardableResult
  package func prove(steps: Int = .max, settledFor: String = "5 min") throws(PostgresError) -> Int {
    try boundWaits()
    var done = 0
    while done < steps, !Task.isCancelled {
      let rows = try connection.query(
        "SELECT id FROM outbox.prove(settled_for => $1::text::interval)",
        [.text(settledFor)]
      )
      guard rows.count > 0 else { break }
      done += 1
    }
    return done
  }

  /// Looks again at all that the ledger knows to be open in a period, a transaction per 100,000 deliveries.
  package func proveAgain(_ period: Period) throws(PostgresError) {
    try boundWaits()
    let now = try connection.query("SELECT clock_timestamp()::text")
    let before = try now.required(now.string(0, 0), 0)
    while try connection.query(
      "SELECT id FROM outbox.prove_again($1::text::timestamptz, $2::text::timestamptz, $3::text::timestamptz)",
      [.text(period.since), .text(period.until), .text(before)]
    ).count > 0, !Task.isCancelled {}
  }

  /// Puts back the deliveries that are missing in a period; a finding each.
  package func repair(_ period: Period) throws(PostgresError) -> [Finding] {
    try boundWaits()
    let rows = try connection.query(
      "SELECT event_id::text, endpoint_id::text FROM outbox.repair($1::text::timestamptz, $2::text::timestamptz)",
      [.text(period.since), .text(period.until)]
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

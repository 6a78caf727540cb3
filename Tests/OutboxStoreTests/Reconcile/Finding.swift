import Foundation
import OutboxStore
import Postgres

/// A row of `outbox.reconcile()`.
struct Finding: Equatable, CustomStringConvertible {
  var severity, finding, subject, detail, remedy: String

  /// The statements in the remedy, as a person would type them.
  var statements: [String] {
    remedy.matches(of: /(SELECT|INSERT|UPDATE|DELETE|COMMIT|ROLLBACK|GRANT)[^;]*;/).map { String($0.0) }
  }

  var description: String { "\(severity): \(finding): \(subject): \(detail) — \(remedy)" }
}

extension Client {
  func findings(_ arguments: String = "") async throws -> [Finding] {
    try await rows("SELECT * FROM outbox.reconcile(\(arguments))").map { row in
      Finding(
        severity: row[0] ?? "NULL",
        finding: row[1] ?? "NULL",
        subject: row[2] ?? "NULL",
        detail: row[3] ?? "NULL",
        remedy: row[4] ?? ""
      )
    }
  }

  /// The one finding beside the proof of conservation.
  func onlyFinding(_ arguments: String = "") async throws -> Finding {
    let found = try await findings(arguments).filter { $0.severity != "ok" }
    guard found.count == 1 else { throw Unexpected("not one finding: \(found)") }
    return found[0]
  }
}

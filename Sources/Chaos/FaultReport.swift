import Foundation

/// What came of one fault.
package struct FaultReport: Sendable, Codable {
  package var fault: Fault
  package var runs = 0
  package var committed = 0
  package var rolledBack = 0
  /// Deliveries due and made: events times endpoints.
  package var due = 0
  package var delivered = 0
  package var lost = 0
  package var phantom = 0
  package var duplicates = 0
  package var unexplained = 0
  /// By cause, as a mixed run has several: what was in flight at each injection, and what of it was repeated.
  package var injections: [Injections] = []
  package var outOfOrder = 0
  package var longestPauseSeconds = 0.0
  /// Requests without a valid signature, or under a second id.
  package var malformed = 0
  /// What the engine's own count of conservation misses.
  package var unbalanced = 0
  /// COMMITs that got no answer, looked up afterwards.
  package var commitsLookedUp = 0
  /// How often a dispatcher ended without being told to, and was started again.
  package var dispatchersEnded = 0
  package var seconds = 0.0
  /// Why it could not be run to its end.
  package var problem: String?
  /// Why it was not run at all.
  package var skipped: String?

  init(fault: Fault, problem: String?, skipped: String?) {
    self.fault = fault
    self.problem = problem
    self.skipped = skipped
  }

  init(fault: Fault, rounds: Int, _ outcome: Scene.Outcome, took: Duration) {
    let result = outcome.result
    self.fault = fault
    runs = rounds
    committed = outcome.account.journal.committed.count
    rolledBack = outcome.account.journal.rolledBack.count
    due = result.expected
    delivered = result.delivered
    lost = result.lost.count
    phantom = result.phantoms.count
    duplicates = result.duplicates
    unexplained = result.unexplained.count
    injections = result.injections
    outOfOrder = result.misordered.count
    longestPauseSeconds = outcome.pause.seconds
    malformed = outcome.refused + result.renamed.count
    unbalanced = outcome.missing
    commitsLookedUp = outcome.account.journal.lookedUp
    dispatchersEnded = outcome.endsByItself
    seconds = took.seconds
  }

  /// Deliveries in flight at the injections: so many may have been repeated.
  package var bound: Int { injections.reduce(0) { $0 + $1.bound } }
  /// The injection after which the most was repeated.
  private var worst: Injections.One? { injections.map(\.worst).max { $0.repeated < $1.repeated } }

  package var holds: Bool {
    problem == nil && lost == 0 && phantom == 0 && outOfOrder == 0 && unexplained == 0 && duplicates <= bound
      && injections.allSatisfy { $0.exceeded == 0 } && malformed == 0 && unbalanced == 0
  }

  private static let columns: [(name: String, width: Int)] = [
    ("runs", 5), ("committed", 10), ("rolled back", 12), ("delivered", 10), ("lost", 5), ("phantom", 8),
    ("repeated", 9), ("explained", 10), ("bound", 7), ("worst", 10), ("order", 6), ("pause", 7),
  ]

  package static var header: String {
    "fault             " + columns.map { $0.name.leftPadded($0.width) }.joined()
  }

  package var line: String {
    let name = fault.rawValue.padding(toLength: 18, withPad: " ", startingAt: 0)
    if let skipped { return name + "not measured: \(skipped)" }
    if let problem { return name + "FAILED: \(problem)" }
    let values = [
      "\(runs)", "\(committed)", "\(rolledBack)", "\(delivered)", "\(lost)", "\(phantom)", "\(duplicates)",
      "\(duplicates - unexplained)", "\(bound)", worst.map { "\($0.repeated)/\($0.bound)" } ?? "-", "\(outOfOrder)",
      String(format: "%.1f s", longestPauseSeconds),
    ]
    return name + zip(values, Self.columns).map { $0.leftPadded($1.width) }.joined() + (holds ? "" : "  FAILED")
  }

  /// What went wrong, by name.
  func particulars(_ outcome: Scene.Outcome) -> [String] {
    let result = outcome.result
    let kinds: [(String, [Pair])] = [
      ("lost", result.lost), ("phantom", result.phantoms), ("repeated without a reason", result.unexplained),
      ("out of order", result.misordered), ("under a second id", result.renamed),
    ]
    var lines = kinds.filter { !$0.1.isEmpty }.map { what, pairs in
      let named = pairs.prefix(5).map { "event \($0.event) at \(Mailbox.paths[$0.endpoint])" }.joined(separator: ", ")
      return "\(fault.rawValue): \(pairs.count) \(what): \(named)\(pairs.count > 5 ? ", …" : "")"
    }
    if injections.count > 1 {
      lines += injections.map {
        "\(fault.rawValue): \($0.cause.name) \($0.count) times, \($0.repeated) repeated of \($0.bound) in flight, at worst \($0.worst.repeated) of \($0.worst.bound)"
      }
    }
    for pair in result.suspects { lines += outcome.account.timeline(of: pair) }
    lines += outcome.histories
    if outcome.refused > 0 { lines.append("\(fault.rawValue): \(outcome.refused) requests without a valid signature") }
    if outcome.missing > 0 { lines.append("\(fault.rawValue): conservation misses \(outcome.missing)") }
    return lines
  }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

extension String {
  fileprivate func leftPadded(_ width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}

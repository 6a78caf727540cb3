import ArgumentParser
import Foundation
import OutboxStore
import Postgres

struct ReconcileCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reconcile",
    abstract: "Prove that nothing went missing, and say what is stuck or failing.",
    discussion: """
      The equation is told of events created in a period: deliveries = delivered + waiting + in flight + dead, and none \
      missing. The period is widened to what was proved together: up to 10,000 events, or five minutes. What still waits \
      is looked at again before.
      Exit status: 0 healthy, 1 there are findings, 2 it could not be checked (which is not health). \
      The same in SQL: SELECT * FROM outbox.reconcile(); SELECT * FROM outbox.conservation('2026-11-01', '2026-12-01');
      """
  )

  @OptionGroup var database: DatabaseOptions
  @OptionGroup var output: OutputOptions
  @Option(help: "Where the period of the proof begins: how long ago ('7 days'), or when ('2026-11-01').")
  var since = "1 hour"
  @Option(help: "Where it ends, likewise. Default: now.") var until: String?
  @Flag(help: "Send what is missing of that period, and nothing else; then look again.") var repair = false

  func run() async throws {
    let findings: [Finding]
    do {
      findings = try await database.withStore { [since, until, repair] store in
        do {
          let period = try store.period(since: since, until: until)
          try store.prove()
          try store.proveAgain(period)
          return try (repair ? store.repair(period) : []) + store.reconcile(period)
        } catch let error as PostgresError where error.sqlState == "55P03" {
          let holders = (try? store.lockHolders()) ?? []
          throw CommandFailure(
            "waited in vain for a lock on Martlet's tables"
              + (holders.isEmpty ? "." : ":\n  " + holders.joined(separator: "\n  "))
          )
        } catch let error as PostgresError where ["22007", "22008", "22015"].contains(error.sqlState) {
          throw CommandFailure(
            """
            --since \(since)\(until.map { ", --until \($0)" } ?? "") is not what PostgreSQL understands: say how long ago \
            ('2 days', '3 hours') or when ('2026-11-01', '2026-11-01 12:00').
            """
          )
        }
      }
    } catch {
      if output.json {
        print(String(decoding: try JSONEncoder().encode(["could_not_check": "\(error)"]), as: UTF8.self))
      }
      "Could not check: \(error)".printToStandardError()
      throw ExitCode(2)
    }
    if output.json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(findings), as: UTF8.self))
    } else {
      for finding in findings {
        print("\(finding.severity.rawValue.uppercased()): \(finding.finding): \(finding.subject)")
        print("  \(finding.detail)")
        if let remedy = finding.remedy { print("  → \(remedy)") }
      }
    }
    if findings.contains(where: { $0.severity == .unchecked }) { throw ExitCode(2) }
    if findings.contains(where: { $0.severity == .critical || $0.severity == .warning }) { throw ExitCode(1) }
  }
}

import ArgumentParser
import Foundation
import OutboxStore
import Postgres

struct ReconcileCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reconcile",
    abstract: "Prove that nothing went missing, and say what is stuck or failing.",
    discussion: """
      Exit status: 0 healthy, 1 there are findings, 2 it could not be checked (which is not health). \
      The same in SQL: SELECT * FROM outbox.reconcile();
      """
  )

  @OptionGroup var database: DatabaseOptions
  @OptionGroup var output: OutputOptions
  @Option(help: "How far back to prove that nothing is missing: '1 hour', '7 days'. At most the newest 100,000 events.")
  var since = "1 hour"
  @Flag(help: "Send what is missing, and nothing else; then look again.") var repair = false

  func run() async throws {
    let findings: [Finding]
    do {
      findings = try await database.withStore { [since, repair] store in
        do {
          return try (repair ? store.repair(since: since) : []) + store.reconcile(since: since)
        } catch let error as PostgresError where error.sqlState == "55P03" {
          let holders = (try? store.lockHolders()) ?? []
          throw CommandFailure(
            "waited in vain for a lock on Martlet's tables"
              + (holders.isEmpty ? "." : ":\n  " + holders.joined(separator: "\n  "))
          )
        } catch let error as PostgresError where ["22007", "22008", "22015"].contains(error.sqlState) {
          throw CommandFailure(
            "--since \(since) is not a period of time that PostgreSQL understands: '2 days', '3 hours'."
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

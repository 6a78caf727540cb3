import ArgumentParser
import Chaos
import Foundation

struct ChaosCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chaos",
    abstract: "Break things while events are published and delivered, and count what came of it.",
    usage: """
      martlet chaos [<fault> ...] [--rounds <rounds>] [--seed <seed>] [--json]
      martlet chaos endurance [<options>]
      """,
    discussion: """
      For each fault a throwaway PostgreSQL, three dispatchers (processes of this program), six publishers and four \
      endpoints, two of them ordered. What the publishers saw commit is held against what the receiver saw arrive.

      Faults:
      \(Fault.allCases.map { "  \($0.rawValue.padding(toLength: 18, withPad: " ", startingAt: 0))\($0.story)" }.joined(separator: "\n"))

      Columns: committed and rolled back are events; delivered counts events times endpoints; repeated counts arrivals \
      after one that was answered 200, explained those that were in flight when a fault took effect; bound is how many \
      were in flight then; order counts what came before its predecessor of the same key was answered; pause is the \
      longest time without any arrival.

      `martlet chaos endurance` is one long run with millions of deliveries.

      Exit status: 0 nothing was lost, phantom or out of order, and every repetition is explained; 1 otherwise.
      """,
    subcommands: [Faults.self, Endurance.self, Publisher.self],
    defaultSubcommand: Faults.self
  )

  /// What `martlet chaos` does by itself.
  struct Faults: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "One fault after the other, each many times (the default)."
    )

    @Argument(
      help: "Which faults; all by default.",
      transform: { text in
        guard let fault = Fault(rawValue: text) else { throw ValidationError("There is no fault \"\(text)\".") }
        return fault
      }
    )
    var faults: [Fault] = []
    @Option(help: "How often each fault is made.") var rounds = 10
    @Option(help: "Decides kinds of transactions, victims and moments. Default: random, and printed.") var seed: UInt64?
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...10_000).contains(rounds) else { throw ValidationError("--rounds must be 1 to 10000.") }
    }

    func run() async throws {
      let faults = faults.isEmpty ? Fault.allCases : faults
      let seed = seed ?? UInt64.random(in: 0..<1_000_000)
      var run = ChaosRun(faults: faults, rounds: rounds, seed: seed)
      run.progress = { $0.printToStandardError() }
      let all = faults.map(\.rawValue).joined(separator: " ")
      "martlet chaos \(all) --rounds \(rounds) --seed \(seed)".printToStandardError()
      // Past the buffer of `print`, so that lines come as they are known even into a file.
      if !json { run.tell = { FileHandle.standardOutput.write(Data(($0 + "\n").utf8)) } }
      let reports = try await run.run()
      if json {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        print(String(decoding: try encoder.encode(reports), as: UTF8.self))
      }
      if !reports.allSatisfy(\.holds) { throw ExitCode.failure }
    }
  }
}

import ArgumentParser
import Chaos
import Foundation

extension ChaosCommand {
  struct Endurance: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Millions of deliveries in one go, with a fault every minute.",
      discussion: """
        A throwaway PostgreSQL (fsync on), three dispatchers, three endpoints (one of them ordered), three publishers that \
        go on as fast as deliveries are made, a hundred events a transaction: some rolled back, with savepoints, long, \
        two-phase. Faults: kill, zombie, terminate, crash, database-network, receiver-network, each once before any comes \
        again. The database's clock is set a day ahead twenty times, so that retention (of one day) has work. Needs \
        libHostClock.so beside the executable: scripts/chaos builds it.

        Exit status: 0 if nothing was lost, phantom, out of order or repeated without a reason, and (if each tenth took \
        20 seconds) throughput of the last tenth is at least 0.95 of the first's, memory at most 1.10, and no table grew \
        on and on; 1 otherwise.
        """
    )
    @Option(help: "Over after so many deliveries.") var deliveries = 11_300_000
    @Option(
      help: ArgumentHelp("Over after that time, if that comes first: 90s, 30m, 8h.", valueName: "time"),
      transform: duration
    )
    var duration: Duration?
    @Option(
      help: ArgumentHelp("Time between two faults. (default: 60s)", valueName: "time"),
      transform: ChaosCommand.Endurance.duration
    )
    var faultEvery = Duration.seconds(60)
    @Option(help: "Decides faults, victims and moments. Default: random, and printed.") var seed: UInt64?
    @Option(help: ArgumentHelp("Write the report, in Markdown, to this file.", valueName: "file")) var report: String?
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (3000...100_000_000).contains(deliveries) else {
        throw ValidationError("--deliveries \(deliveries): it must be 3000 to 100000000.")
      }
      guard faultEvery >= .seconds(1) else { throw ValidationError("--fault-every must be at least 1s.") }
    }

    func run() async throws {
      let seed = seed ?? UInt64.random(in: 0..<1_000_000)
      var run = EnduranceRun(seed: seed)
      run.deliveries = deliveries
      run.duration = duration
      run.faultEvery = faultEvery
      run.command =
        "martlet chaos endurance --deliveries \(deliveries)"
        + (duration.map { " --duration \($0.components.seconds)s" } ?? "")
        + " --fault-every \(faultEvery.components.seconds)s --seed \(seed)"
      run.tell = { $0.printToStandardError() }
      run.command.printToStandardError()
      // Opened first: a run of hours shall not end with a file that cannot be written.
      let file = try report.map { path in
        guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path)
        else { throw ValidationError("--report \(path) cannot be written.") }
        return file
      }
      let result = try await run.run()
      try file?.write(contentsOf: Data(result.markdown.utf8))
      if json {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        print(String(decoding: try encoder.encode(result), as: UTF8.self))
      } else {
        print(result.markdown)
      }
      if !result.holds { throw ExitCode.failure }
    }

    /// `90s`, `30m`, `8h`; a number alone is seconds.
    @Sendable static func duration(_ text: String) throws -> Duration {
      let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600]
      let unit = text.last.flatMap { units[$0] }
      guard let number = Int(unit == nil ? Substring(text) : text.dropLast()), (1...1_000_000).contains(number) else {
        throw ValidationError("\"\(text)\" is not a time such as 90s, 30m or 8h.")
      }
      return .seconds(number * (unit ?? 1))
    }
  }

  /// A publisher of a run, which is a process of its own. Not for people.
  struct Publisher: AsyncParsableCommand {
    static let configuration = CommandConfiguration(shouldDisplay: false)
    @Flag var bulk = false
    @Option var socket: String
    @Option var index: Int
    @Option var seed: UInt64
    @Option var databaseUrl: String

    func run() async throws {
      try await PublisherProcess(socket: socket, index: index, seed: seed, database: databaseUrl, isBulk: bulk).run()
    }
  }
}

import ArgumentParser
import Bench
import Dispatcher

extension BenchCommand {
  struct Cost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a delivery costs PostgreSQL, beside the bare insert of the same events."
    )
    @Option("Events.", 1...10_000_000) var events = 100_000
    @OptionGroup var body: BodyOptions
    @OptionGroup var times: RunOptions
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = CostBench(version: martletVersion)
      bench.events = events
      bench.bodyBytes = body.bytes
      bench.runs = times.runs
      bench.synchronousCommit = commit.synchronousCommit
      try await output.run(bench)
    }
  }

  struct Publish: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What an event costs the application's transaction, beside the same transaction without it."
    )
    @Option("How many clients at once.", 1...500) var clients = [1, 2, 4, 8, 16]
    @Option("Rows, and events, of a transaction.", 1...100_000) var sizes = [1, 1000]
    @Option("Seconds of each measurement.", 0.1...3600) var seconds = 3.0
    @OptionGroup var body: BodyOptions
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = PublishBench(version: martletVersion)
      bench.clients = clients
      bench.sizes = sizes
      bench.seconds = seconds
      bench.bodyBytes = body.bytes
      bench.runs = times.runs
      try await output.run(bench)
    }
  }
}

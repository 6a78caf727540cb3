import ArgumentParser
import Bench
import Dispatcher

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure throughput, cost and latency on a throwaway PostgreSQL.",
    discussion: """
      scripts/bench installs what is needed, builds for release and passes its arguments on; without any it runs all.
      """,
    subcommands: [
      All.self, Drain.self, Cost.self, Publish.self, Latency.self, Idle.self, Backlog.self, Fanout.self, Scale.self,
      Pinned.self, Neighbours.self, Burst.self,
    ]
  )

  struct All: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Every benchmark, one after the other, and one report of them all.",
      discussion: """
        Takes some two and a half hours and 20 GB of disk; with --quick minutes, of a few runs at small sizes. The report is \
        written anew after each benchmark. Exit status 1 if one of them failed; the report says which, and why.
        """
    )
    @Flag(help: "Small sizes: to see that it works, not for figures.") var quick = false
    @Option(
      help: ArgumentHelp(
        "Only these, separated by commas: \(BenchSuite.names.joined(separator: ", ")).",
        valueName: "names"
      ),
      transform: { $0.split(separator: ",").map(String.init) }
    )
    var only: [String] = []
    @Option(help: ArgumentHelp("Where to write the report, in Markdown.", valueName: "file"))
    var report = "martlet-performance.md"

    func validate() throws {
      try BenchOutput.requireWritable(report)
      let names = BenchSuite.names
      for name in only where !names.contains(name) {
        throw ValidationError("There is no benchmark \(name). There are: \(names.joined(separator: ", ")).")
      }
    }

    func run() async throws {
      let suite = BenchSuite(version: martletVersion, isQuick: quick) { $0.printToStandardError() }
      let failed = try await suite.run(only: only) { try BenchOutput.write($0, to: report) }
      print(report)
      if failed > 0 { throw ExitCode.failure }
    }
  }

  struct Drain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Empty a full log to nginx with one dispatcher, beside a bare libcurl loop."
    )
    @Option("Events in the log.", 1...10_000_000) var events = 200_000
    @Option("Requests in flight, of the endpoint and of the bare loop.", 1...4096) var maxInFlight = 64
    @OptionGroup var body: BodyOptions
    @OptionGroup var times: RunOptions
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = DrainBench(version: martletVersion)
      bench.events = events
      bench.bodyBytes = body.bytes
      bench.inFlight = maxInFlight
      bench.runs = times.runs
      bench.synchronousCommit = commit.synchronousCommit
      try await output.run(bench)
    }
  }

  struct Latency: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "From commit to the first byte at the receiver, at a steady rate."
    )
    @Option("Events a second, one a transaction.", 1...10_000) var rate = 100
    @Option("Seconds to measure.", 1...3600) var seconds = 30
    @OptionGroup var times: RunOptions
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = LatencyBench(version: martletVersion)
      bench.rate = rate
      bench.seconds = seconds
      bench.synchronousCommit = commit.synchronousCommit
      try await output.run(bench, times)
    }
  }

  struct Idle: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a dispatcher with nothing to do costs, and the first event after the silence."
    )
    @Option("Seconds of silence.", 1...7200) var seconds = 30
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = IdleBench(version: martletVersion)
      bench.seconds = seconds
      try await output.run(bench, times)
    }
  }
}

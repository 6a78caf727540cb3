import ArgumentParser
import Bench
import Dispatcher

/// What stays flat while something grows: the backlog, the endpoints, the dispatchers, the age of a transaction.
extension BenchCommand {
  struct Backlog: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a backlog does to cut, claim, record and the rate of deliveries.",
      discussion: "Each size is loaded into a database of its own; ten million events take 8 GB."
    )
    @Option("Events not yet cut; none is always measured.", 1...100_000_000) var log = [1_000_000, 10_000_000]
    @Option("Deliveries waiting for the same endpoint.", 1...100_000_000) var waiting = [1_000_000]
    @Option("Parked deliveries of a dead endpoint.", 1...100_000_000) var dead = [10_000_000]
    @Option("Cuts and claims of each kind.", 1...1000) var cuts = 20
    @Option("Deliveries that a dispatcher makes, each time; 0: only steps are measured.", 0...10_000_000)
    var deliveries = 50_000
    @OptionGroup var body: BodyOptions
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = BacklogBench(version: martletVersion)
      bench.log = log
      bench.waiting = waiting
      bench.dead = dead
      bench.cuts = cuts
      bench.deliveries = deliveries
      bench.bodyBytes = body.bytes
      bench.runs = times.runs
      try await output.run(bench)
    }
  }

  struct Fanout: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a cut costs by the endpoints that do not match, and a delivery by the number of those that do."
    )
    @Option("Cuts of each kind; medians are printed.", 1...1000) var cuts = 20
    @Option("Endpoints, three of which match, to compare with ten.", 10...1_000_000) var endpoints = 10_000
    @Option("To how many endpoints one event goes.", 1...10_000) var to = [1, 10, 1000]
    @Option(help: "Deliveries a dispatcher makes for each fan-out; 0: only cuts are measured.") var deliveries = 50_000
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      guard deliveries == 0 || (1000...10_000_000).contains(deliveries) else {
        throw ValidationError("--deliveries must be 0, or 1000 to 10000000.")
      }
    }

    func run() async throws {
      var bench = FanoutBench(version: martletVersion)
      bench.cuts = cuts
      bench.manyEndpoints = endpoints
      bench.fanouts = to
      bench.deliveries = deliveries
      try await output.run(bench, times)
    }
  }

  struct Scale: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "More dispatchers for one log, and very many slow receivers for one dispatcher."
    )
    @Option("Dispatcher processes; the first is what the others are compared with.", 1...64)
    var dispatchers = [1, 2, 4]
    @Option("Events that they deliver together.", 1...10_000_000) var events = 100_000
    @Option("Slow receivers.", 1...10_000) var receivers = [10, 100, 1000, 5000]
    @Option("Milliseconds that each takes for a request.", 1...10_000) var slowness = 1000
    @Option("Events for each of them.", 1...1000) var each = 5
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = ScaleBench(version: martletVersion)
      bench.dispatchers = dispatchers
      bench.events = events
      bench.receivers = receivers
      bench.receiverMilliseconds = slowness
      bench.each = each
      bench.runs = times.runs
      try await output.run(bench)
    }
  }

  struct Pinned: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a transaction that stays open does to deliveries: the first minutes against the last.",
      discussion: """
        The duration is divided into sixty slices; the first five are held against the last five, after one that only \
        warms up.
        """
    )
    @Option(help: "How long: 90s, 30m, 1h.") var duration = Seconds(1800)
    @Option("Events a second, one a transaction.", 10...100_000) var rate = 2000
    @Option("Connections that publish.", 1...64) var connections = 8
    @Flag(help: "The same without the open transaction: what then changes is the machine's doing.") var unpinned = false
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      guard (6...1_000_000).contains(duration.count) else { throw ValidationError("--duration must be at least 6s.") }
    }

    func run() async throws {
      var bench = PinnedBench(version: martletVersion)
      bench.seconds = duration.count
      bench.rate = rate
      bench.connections = connections
      bench.isPinned = !unpinned
      bench.synchronousCommit = commit.synchronousCommit
      try await output.run(bench)
    }
  }
}

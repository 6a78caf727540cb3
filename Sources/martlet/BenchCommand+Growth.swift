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
    @Option(help: "Events not yet cut; none is always measured.", transform: numbers(1...100_000_000))
    var log = [1_000_000, 10_000_000]
    @Option(help: "Deliveries waiting for the same endpoint.", transform: numbers(1...100_000_000))
    var waiting = [1_000_000]
    @Option(help: "Parked deliveries of a dead endpoint.", transform: numbers(1...100_000_000))
    var dead = [10_000_000]
    @Option(help: "Cuts and claims of each kind.") var cuts = 20
    @Option(help: "Deliveries that a dispatcher makes, each time; 0: only steps are measured.") var deliveries = 50_000
    @OptionGroup var body: BodyOptions
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      try check("cuts", cuts, 1...1000)
      try check("deliveries", deliveries, 0...10_000_000)
    }

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
    @Option(help: "Cuts of each kind; medians are printed.") var cuts = 20
    @Option(help: "Endpoints, three of which match, to compare with ten.") var endpoints = 10_000
    @Option(help: "To how many endpoints one event goes.", transform: numbers(1...10_000)) var to = [1, 10, 1000]
    @Option(help: "Deliveries a dispatcher makes for each fan-out; 0: only cuts are measured.") var deliveries = 50_000
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      try check("cuts", cuts, 1...1000)
      try check("endpoints", endpoints, 10...1_000_000)
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
    @Option(help: "Dispatcher processes; the first is what the others are compared with.", transform: numbers(1...64))
    var dispatchers = [1, 2, 4]
    @Option(help: "Events that they deliver together.") var events = 100_000
    @Option(help: "Slow receivers.", transform: numbers(1...10_000)) var receivers = [10, 100, 1000, 5000]
    @Option(help: "Milliseconds that each takes for a request.") var slowness = 1000
    @Option(help: "Events for each of them.") var each = 5
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      try check("events", events, 1...10_000_000)
      try check("slowness", slowness, 1...10_000)
      try check("each", each, 1...1000)
    }

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
    @Option(help: "Events a second, one a transaction.") var rate = 2000
    @Option(help: "Connections that publish.") var connections = 8
    @Flag(help: "The same without the open transaction: what then changes is the machine's doing.") var unpinned = false
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      guard (6...1_000_000).contains(duration.count) else { throw ValidationError("--duration must be at least 6s.") }
      try check("rate", rate, 10...100_000)
      try check("connections", connections, 1...64)
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

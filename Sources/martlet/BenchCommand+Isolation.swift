import ArgumentParser
import Bench
import Dispatcher

extension BenchCommand {
  struct Neighbours: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What endpoints that behave notice of four that do not: latency alone and beside them, in turns.",
      discussion: "As root; otherwise the silent name server is left out, and the report says so."
    )
    @Option("Endpoints that behave.", 1...10_000) var neighbours = 96
    @Option("Events a second for all of them together, one a transaction.", 1...10_000) var rate = 96
    @Option("Events a second for each of the faulty ones.", 1...1000) var faultRate = 20
    @Option("Requests a second that the busy one takes.", 1...100_000) var busyTakes = 20
    @Option("How many times as many it gets.", 1...10_000) var busyFactor = 50.0
    @Option("Endpoints with each of the faults.", 1...100) var each = 1
    @Option(
      help: ArgumentHelp("Which faults: hang, error, busy, dns.", valueName: "names"),
      transform: { text in
        try Set(
          text.split(separator: ",").map { name in
            guard let fault = NeighboursBench.Fault(rawValue: String(name)) else {
              throw ValidationError("There is no fault \(name).")
            }
            return fault
          }
        )
      }
    )
    var faults = Set(NeighboursBench.Fault.allCases)
    @Option("Seconds of each phase.", 1...3600) var seconds = 30
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = NeighboursBench(version: martletVersion)
      bench.neighbours = neighbours
      bench.rate = rate
      bench.faultRate = faultRate
      bench.busyTakes = busyTakes
      bench.busyFactor = busyFactor
      bench.each = each
      bench.faults = faults
      bench.seconds = seconds
      bench.rounds = times.runs
      try await output.run(bench)
    }
  }

  struct Burst: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Very many events for one endpoint in one transaction, and what another endpoint notices of it."
    )
    @Option("Events in the transaction.", 1...10_000_000) var events = 100_000
    @Option("Events a second for the other endpoint.", 1...1000) var rate = 20
    @Option("Requests a second that the burst's endpoint takes. Default: all that nginx does.", 1...100_000)
    var receiverRate: Int?
    @Option("Seconds to watch before the burst, and after its cut.", 1...3600) var seconds = 10
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func run() async throws {
      var bench = BurstBench(version: martletVersion)
      bench.events = events
      bench.rate = rate
      bench.receiverRate = receiverRate
      bench.seconds = seconds
      try await output.run(bench, times)
    }
  }
}

import ArgumentParser
import Bench
import Dispatcher

extension BenchCommand {
  struct Neighbours: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What endpoints that behave notice of four that do not: latency alone and beside them, in turns.",
      discussion: "As root; otherwise the silent name server is left out, and the report says so."
    )
    @Option(help: "Endpoints that behave.") var neighbours = 96
    @Option(help: "Events a second for all of them together, one a transaction.") var rate = 96
    @Option(help: "Events a second for each of the faulty ones.") var faultRate = 20
    @Option(help: "Requests a second that the busy one takes.") var busyTakes = 20
    @Option(help: "How many times as many it gets.") var busyFactor = 50.0
    @Option(help: "Endpoints with each of the faults.") var each = 1
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
    @Option(help: "Seconds of each phase.") var seconds = 30
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      try check("neighbours", neighbours, 1...10_000)
      try check("rate", rate, 1...10_000)
      try check("fault-rate", faultRate, 1...1000)
      try check("busy-takes", busyTakes, 1...100_000)
      try check("busy-factor", busyFactor, 1...10_000)
      try check("each", each, 1...100)
      try check("seconds", seconds, 1...3600)
    }

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
    @Option(help: "Events in the transaction.") var events = 100_000
    @Option(help: "Events a second for the other endpoint.") var rate = 20
    @Option(help: "Requests a second that the burst's endpoint takes. Default: all that nginx does.") var receiverRate:
      Int?
    @Option(help: "Seconds to watch before the burst, and after its cut.") var seconds = 10
    @OptionGroup var times: RunOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      try check("events", events, 1...10_000_000)
      try check("rate", rate, 1...1000)
      try check("receiver-rate", receiverRate ?? 1, 1...100_000)
      try check("seconds", seconds, 1...3600)
    }

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

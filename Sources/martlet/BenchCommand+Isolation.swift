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
    @Option(help: "Rounds, each of two phases; medians are printed.") var rounds = 5
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...10_000).contains(neighbours) else { throw ValidationError("--neighbours must be 1 to 10000.") }
      guard (1...10_000).contains(rate) else { throw ValidationError("--rate must be 1 to 10000.") }
      guard (1...1000).contains(faultRate) else { throw ValidationError("--fault-rate must be 1 to 1000.") }
      guard (1...100_000).contains(busyTakes) else { throw ValidationError("--busy-takes must be 1 to 100000.") }
      guard (1...10_000).contains(busyFactor) else { throw ValidationError("--busy-factor must be 1 to 10000.") }
      guard (1...100).contains(each) else { throw ValidationError("--each must be 1 to 100.") }
      guard (1...3600).contains(seconds) else { throw ValidationError("--seconds must be 1 to 3600.") }
      guard (1...100).contains(rounds) else { throw ValidationError("--rounds must be 1 to 100.") }
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
      bench.rounds = rounds
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
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
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...10_000_000).contains(events) else { throw ValidationError("--events must be 1 to 10000000.") }
      guard (1...1000).contains(rate) else { throw ValidationError("--rate must be 1 to 1000.") }
      guard (1...100_000).contains(receiverRate ?? 1) else {
        throw ValidationError("--receiver-rate must be 1 to 100000.")
      }
      guard (1...3600).contains(seconds) else { throw ValidationError("--seconds must be 1 to 3600.") }
    }

    func run() async throws {
      var bench = BurstBench(version: martletVersion)
      bench.events = events
      bench.rate = rate
      bench.receiverRate = receiverRate
      bench.seconds = seconds
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
    }
  }

  struct Fanout: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a cut costs by the endpoints that do not match, and a delivery by the number of those that do."
    )
    @Option(help: "Cuts of each kind; medians are printed.") var cuts = 20
    @Option(help: "Endpoints, three of which match, to compare with ten.") var endpoints = 10_000
    @Option(help: "Deliveries a dispatcher makes for each fan-out; 0: only cuts are measured.") var deliveries = 50_000
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...1000).contains(cuts) else { throw ValidationError("--cuts must be 1 to 1000.") }
      guard (10...1_000_000).contains(endpoints) else { throw ValidationError("--endpoints must be 10 to 1000000.") }
      guard deliveries == 0 || (1000...10_000_000).contains(deliveries) else {
        throw ValidationError("--deliveries must be 0, or 1000 to 10000000.")
      }
    }

    func run() async throws {
      var bench = FanoutBench(version: martletVersion)
      bench.cuts = cuts
      bench.manyEndpoints = endpoints
      bench.deliveries = deliveries
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
    }
  }
}

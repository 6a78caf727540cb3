import ArgumentParser
import Bench
import Dispatcher

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure throughput, cost and latency on a throwaway PostgreSQL.",
    discussion: "scripts/bench installs what is needed, builds for release and passes its arguments on.",
    subcommands: [Drain.self, Latency.self, Idle.self, Neighbours.self, Burst.self, Fanout.self, Pinned.self]
  )

  struct Drain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Empty a full log to nginx with one dispatcher, beside a bare libcurl loop."
    )
    @Option(help: "Events in the log.") var events = 100_000
    @Option(help: "Bytes of each request's body.") var bytes = 500
    @Option(help: "Requests in flight, of the endpoint and of the bare loop.") var maxInFlight = 64
    @Option(help: "Rounds; medians are printed.") var runs = 1
    @Flag(help: "The dispatcher waits for the disk with every cut and record.") var synchronousCommit = false
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...10_000_000).contains(events) else { throw ValidationError("--events must be 1 to 10000000.") }
      guard (200...1_000_000).contains(bytes) else { throw ValidationError("--bytes must be 200 to 1000000.") }
      guard (1...4096).contains(maxInFlight) else { throw ValidationError("--max-in-flight must be 1 to 4096.") }
      guard (1...100).contains(runs) else { throw ValidationError("--runs must be 1 to 100.") }
    }

    func run() async throws {
      var bench = DrainBench(version: martletVersion)
      bench.events = events
      bench.bodyBytes = bytes
      bench.inFlight = maxInFlight
      bench.runs = runs
      bench.synchronousCommit = synchronousCommit
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
    }
  }

  struct Latency: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "From commit to the first byte at the receiver, at a steady rate."
    )
    @Option(help: "Events a second, one a transaction.") var rate = 100
    @Option(help: "Seconds to measure.") var seconds = 30
    @Flag(help: "The dispatcher waits for the disk with every cut and record.") var synchronousCommit = false
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...10_000).contains(rate) else { throw ValidationError("--rate must be 1 to 10000.") }
      guard (1...3600).contains(seconds) else { throw ValidationError("--seconds must be 1 to 3600.") }
    }

    func run() async throws {
      var bench = LatencyBench(version: martletVersion)
      bench.rate = rate
      bench.seconds = seconds
      bench.synchronousCommit = synchronousCommit
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
    }
  }

  struct Idle: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a dispatcher with nothing to do costs, and the first event after the silence."
    )
    @Option(help: "Seconds of silence.") var seconds = 30
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
      guard (1...3600).contains(seconds) else { throw ValidationError("--seconds must be 1 to 3600.") }
    }

    func run() async throws {
      var bench = IdleBench(version: martletVersion)
      bench.seconds = seconds
      bench.progress = { $0.printToStandardError() }
      let report = try await bench.run()
      print(json ? try report.json() : report.text)
    }
  }
}

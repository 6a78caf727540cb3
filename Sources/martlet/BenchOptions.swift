import ArgumentParser
import Bench
import Dispatcher
import Foundation

/// What every benchmark can be told.
struct BenchOutput: ParsableArguments {
  @Flag(help: "Print JSON.") var json = false
  @Option(help: ArgumentHelp("Write the report to this file as well, in Markdown.", valueName: "file"))
  var report: String?

  func validate() throws {
    if let report { try Self.requireWritable(report) }
  }

  /// Before hours are spent on it.
  static func requireWritable(_ report: String) throws {
    let folder = URL(fileURLWithPath: report).deletingLastPathComponent().path
    guard !report.isEmpty, FileManager.default.isWritableFile(atPath: folder) else {
      throw ValidationError("--report: no file can be written in \(folder).")
    }
  }

  static func write(_ markdown: String, to report: String) throws {
    try Data(markdown.utf8).write(to: URL(fileURLWithPath: report))
  }

  /// Runs a benchmark, and prints what came of it.
  func run(_ bench: some Bench) async throws {
    var bench = bench
    bench.progress = { $0.printToStandardError() }
    let result = try await bench.run()
    if let report { try Self.write(result.markdown, to: report) }
    print(json ? try result.json() : result.text)
  }

  /// The same several times, unless once is enough.
  func run<Single: Bench>(_ bench: Single, _ times: RunOptions) async throws where Single.Report: FigureReport {
    if times.runs == 1 { try await run(bench) } else { try await run(Repeated(bench, runs: times.runs)) }
  }
}

/// How often, for benchmarks that take little enough time.
struct RunOptions: ParsableArguments {
  @Option("Runs; printed are the median of each figure, the lowest and the highest.", 1...100) var runs = 5
}

/// What is sent.
struct BodyOptions: ParsableArguments {
  @Option("Bytes of each request's body.", 200...1_000_000) var bytes = 500
}

/// How long the dispatcher's own transactions take.
struct CommitOptions: ParsableArguments {
  @Flag(help: "The dispatcher waits for the disk with every cut and record.") var synchronousCommit = false
}

extension Option {
  /// A number of a range; any other is refused.
  init(wrappedValue: Value, _ help: String, _ range: ClosedRange<Value>)
  where Value: LosslessStringConvertible & Comparable & Sendable {
    // Of what has a transformation the library does not tell the default.
    let help = ArgumentHelp("\(help) (default: \(wrappedValue))")
    self.init(wrappedValue: wrappedValue, help: help, transform: number(range))
  }

  /// One that may be left out.
  init(_ help: String, _ range: ClosedRange<Int>) where Value == Int? {
    self.init(help: ArgumentHelp(help), transform: number(range))
  }

  /// Several of them: `10,100,1000`
  init(wrappedValue: [Int], _ help: String, _ range: ClosedRange<Int>) where Value == [Int] {
    let help = ArgumentHelp("\(help) (default: \(wrappedValue.map(String.init).joined(separator: ",")))")
    self.init(wrappedValue: wrappedValue, help: help) { text in
      try text.split(separator: ",").map { try number(range)(String($0)) }
    }
  }
}

private func number<Number: LosslessStringConvertible & Comparable & Sendable>(
  _ range: ClosedRange<Number>
) -> @Sendable (String) throws -> Number {
  { text in
    guard let number = Number(text), range.contains(number) else {
      throw ValidationError("\"\(text)\" is not a number from \(range.lowerBound) to \(range.upperBound).")
    }
    return number
  }
}

/// `90`, `90s`, `30m`, `1h`: whole seconds.
struct Seconds: ExpressibleByArgument {
  var count: Int

  init(_ count: Int) { self.count = count }

  init?(argument: String) {
    let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600]
    let unit = argument.last.flatMap { units[$0] }
    guard let number = Int(unit == nil ? argument : String(argument.dropLast())), (0...1_000_000).contains(number)
    else { return nil }
    count = number * (unit ?? 1)
  }

  var defaultValueDescription: String {
    count % 3600 == 0 ? "\(count / 3600)h" : count % 60 == 0 ? "\(count / 60)m" : "\(count)s"
  }
}

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
    guard let report else { return }
    // Before hours are spent on it.
    let folder = URL(fileURLWithPath: report).deletingLastPathComponent().path
    guard !report.isEmpty, FileManager.default.isWritableFile(atPath: folder) else {
      throw ValidationError("--report: no file can be written in \(folder).")
    }
  }

  /// Runs a benchmark as its options have set it, and prints what came of it.
  func run<B: Bench>(_ type: B.Type, _ configure: (inout B) -> Void) async throws {
    var bench = B(version: martletVersion)
    bench.progress = { $0.printToStandardError() }
    configure(&bench)
    let result = try await bench.run()
    if let report { try Data(result.markdown.utf8).write(to: URL(fileURLWithPath: report)) }
    print(json ? try result.json() : result.text)
  }
}

/// How long the dispatcher's own transactions take.
struct CommitOptions: ParsableArguments {
  @Flag(help: "The dispatcher waits for the disk with every cut and record.") var synchronousCommit = false
}

/// Refuses a number that is out of its range, naming the option.
func check<Number: Comparable & CustomStringConvertible>(
  _ option: String,
  _ value: Number,
  _ range: ClosedRange<Number>
) throws {
  guard range.contains(value) else {
    throw ValidationError("--\(option) must be \(range.lowerBound) to \(range.upperBound).")
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

import ArgumentParser
import Fuzzing

/// What `scripts/fuzz` runs.
@main struct FuzzCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fuzz",
    abstract: "Feed whatever parses bytes from outside with inputs that nobody thought of.",
    discussion: """
      Every input follows from its seed. A finding, and a trap as well, names the target and the seed; \
      --target NAME --seed SEED --inputs 1 makes that input again.
      """
  )

  @Option(help: "How many, divided among the targets.") var inputs = 1_000_000
  @Option(help: "The seed of the first input. Default: another one every time.") var seed: UInt64 = .random(
    in: 1...999_999_999
  )
  @Option(help: ArgumentHelp("One target only.", valueName: "name")) var target: String?

  func validate() throws {
    guard inputs > 0 else { throw ValidationError("--inputs must be 1 or more.") }
    guard target == nil || FuzzTarget.all.contains(where: { $0.name == target }) else {
      throw ValidationError("There is no such target; there are \(FuzzTarget.all.map(\.name).joined(separator: ", ")).")
    }
  }

  func run() throws {
    let targets = FuzzTarget.all.filter { target == nil || $0.name == target }
    var left = inputs
    print("target             inputs      seed          accepted   inputs/s")
    for (index, target) in targets.enumerated() {
      let count = left / (targets.count - index)
      left -= count
      let report = try FuzzRun(target, seed: seed, count: count).run()
      print(
        "\(target.name.padded(19))\(String(count).padded(12))\(String(seed).padded(14))"
          + "\("\(Int((report.accepted * 100).rounded())) %".padded(11))\(Int(report.inputsPerSecond))"
      )
    }
    print("\(inputs) inputs, no trap and no finding")
  }
}

extension String {
  fileprivate func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(1, width - count)) }
}

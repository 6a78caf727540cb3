import Glibc

/// Runs a target on inputs with the seeds `seed`, `seed + 1`…
package struct FuzzRun {
  package let target: FuzzTarget
  package let seed: UInt64
  package let count: Int

  package init(_ target: FuzzTarget, seed: UInt64, count: Int) {
    self.target = target
    self.seed = seed
    self.count = count
  }

  package struct Failure: Error, CustomStringConvertible {
    package let description: String
  }

  package struct Report: Sendable {
    package var inputsPerSecond: Double
    /// The part of the inputs that were accepted, 0 to 1.
    package var accepted: Double
  }

  package func run() throws -> Report {
    CrashNote.target = .init(target.name)
    CrashNote.install()
    let began = ContinuousClock.now
    var accepted = 0
    for number in 0..<count {
      CrashNote.seed = seed &+ UInt64(number)
      var random = FuzzRandom(seed: CrashNote.seed)
      do {
        if try target.check(&random) { accepted += 1 }
      } catch {
        throw Failure(description: "\(target.name), seed \(CrashNote.seed): \(error)")
      }
    }
    let seconds = (ContinuousClock.now - began) / .seconds(1)
    return Report(
      inputsPerSecond: Double(count) / max(seconds, 1e-9),
      accepted: Double(accepted) / Double(max(count, 1))
    )
  }
}

/// Says which input it was, should one end the process.
private enum CrashNote {
  // One thread runs, and the handler runs on it.
  nonisolated(unsafe) static var seed: UInt64 = 0
  nonisolated(unsafe) static var target: StaticText = ""
  nonisolated(unsafe) private static var isInstalled = false

  /// What a signal handler may read: no allocation, no reference count.
  struct StaticText: ExpressibleByStringLiteral {
    var bytes: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    init(stringLiteral text: String) { self.init(text) }
    init(_ text: String) {
      withUnsafeMutableBytes(of: &bytes) { $0.copyBytes(from: text.utf8.prefix(32)) }
    }
  }

  static func install() {
    guard !isInstalled else { return }
    isInstalled = true
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] {
      Glibc.signal(number) { number in
        CrashNote.say()
        Glibc.signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  private static func say() {
    func put(_ text: StaticString) { _ = write(STDERR_FILENO, text.utf8Start, text.utf8CodeUnitCount) }
    put("\ntrapped: target ")
    withUnsafeBytes(of: &target.bytes) { _ = write(STDERR_FILENO, $0.baseAddress, 32) }
    put(", seed ")
    var rest = seed
    var divisor: UInt64 = 10_000_000_000_000_000_000
    while divisor > 0 {
      var digit = UInt8(0x30 + rest / divisor)
      _ = write(STDERR_FILENO, &digit, 1)
      rest %= divisor
      divisor /= 10
    }
    put("\n")
  }
}

import Foundation
import Synchronization

/// Where the demo tells its story: lines that stay and, on a terminal, one below them that is written over.
final class Screen: Sendable {
  private struct State {
    var hasStatus = false
    var lastStatus: ContinuousClock.Instant?
  }

  private let start = ContinuousClock.now
  private let isTerminal = isatty(1) == 1
  private let state = Mutex(State())

  /// A line that stays.
  func say(_ line: String = "") {
    state.withLock { state in
      write((state.hasStatus ? "\r\u{1B}[K" : "") + line + "\n")
      state.hasStatus = false
    }
  }

  /// A line that stays, with the time since the start.
  func tell(_ line: String) { say("\(time)  \(line)") }

  /// How far things are. Where lines cannot be written over, a line every few seconds is enough.
  func status(_ line: String) {
    state.withLock { state in
      if isTerminal {
        write("\r\(time)  \(line)\u{1B}[K")
        state.hasStatus = true
      } else if state.lastStatus.map({ .now - $0 >= .seconds(3) }) ?? true {
        write("\(time)  \(line)\n")
        state.lastStatus = .now
      }
    }
  }

  /// Takes the line that is written over away.
  func clearStatus() {
    state.withLock { state in
      if state.hasStatus { write("\r\u{1B}[K") }
      state.hasStatus = false
    }
  }

  private var time: String { (ContinuousClock.now - start).inSeconds.leftPadded(7) }

  /// Past the buffer of `print`, so that nothing is late or lost.
  private func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }
}

extension Duration {
  /// `12.3 s`
  var inSeconds: String {
    let tenths = Int((self / .milliseconds(100)).rounded())
    return "\(tenths / 10).\(tenths % 10) s"
  }
}

extension String {
  func leftPadded(_ width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
  func rightPadded(_ width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}

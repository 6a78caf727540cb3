import Synchronization

/// Closed at first; whoever waits goes on when it opens. Deaf to cancellation, on purpose: it plays the handler that
/// ignores it.
final class Gate: Sendable {
  private let state = Mutex<(isOpen: Bool, waiting: [CheckedContinuation<Void, Never>])>((false, []))

  func open() {
    let waiting = state.withLock { state in
      state.isOpen = true
      let waiting = state.waiting
      state.waiting = []
      return waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  func wait() async {
    await withCheckedContinuation { continuation in
      let isOpen = state.withLock { state in
        if !state.isOpen { state.waiting.append(continuation) }
        return state.isOpen
      }
      if isOpen { continuation.resume() }
    }
  }
}

/// What was told, in order.
final class Log<Element: Sendable>: Sendable {
  private let entries = Mutex<[Element]>([])

  func append(_ entry: Element) {
    entries.withLock { $0.append(entry) }
  }

  var all: [Element] {
    entries.withLock { $0 }
  }
}

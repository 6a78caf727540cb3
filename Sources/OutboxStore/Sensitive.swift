/// A text that nothing prints: neither interpolation nor `dump`, a log or an error shows it by accident.
package struct Sensitive: Sendable, Equatable {
  /// **The text itself.**
  package let revealed: String

  package init(_ text: String) { revealed = text }
}

extension Sensitive: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  package var description: String { "(not shown)" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

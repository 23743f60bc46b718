//! The table: order, bounds, agents, totals and roots.

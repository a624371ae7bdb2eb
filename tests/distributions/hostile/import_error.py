"""A dependency that is not installed."""

import a_package_nobody_has

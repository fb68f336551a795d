//! The PostgreSQL pool, migrations, and a private PostgreSQL.
